"""Vectors of texts from a generating MLX model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jobs.contract.errors import InvalidRequestError
from workers.engines.base import EngineOptions, Pooling
from workers.engines.mlx.engine import open_mlx

DEMO = Path(__file__).parents[2] / "models" / "demo"


def test_each_pooling_gives_vectors_of_length_one_that_depend_on_the_text() -> None:
    engine = open_mlx(DEMO, EngineOptions(), lambda fraction: None)
    texts = ["Hello!", "What is 3 + 4?", "Hello!"]
    inputs = [
        engine.tokenizer.encode(text, add_special=False, parse_special=False) for text in texts
    ]
    for pooling in (None, *Pooling):
        vectors = np.array(engine.embed(inputs, pooling))
        assert vectors.shape == (3, 192)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
        assert np.allclose(vectors[0], vectors[2], atol=1e-6)
        assert np.abs(vectors[0] - vectors[1]).max() > 0.01
    with pytest.raises(InvalidRequestError):
        engine.embed([[1] * (engine.info.context_length + 1)], None)
    with pytest.raises(InvalidRequestError):
        engine.embed([[]], None)
    engine.close()
