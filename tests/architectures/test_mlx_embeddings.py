"""Every MLX architecture gives the vectors that its own hidden states have."""

from __future__ import annotations

import operator
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
from mlx_lm.models.cache import make_prompt_cache

from scripts.modelfiles.mlx_architectures import architectures
from scripts.modelfiles.mlx_sizes import COMMON
from scripts.modelfiles.mlx_special import METAL_ONLY
from tests.architectures.chosen import MLX, chosen
from tests.architectures.mlx_reference import Reference, opened, prompt_of
from workers.engines.base import Pooling

pytestmark = pytest.mark.real_engine

INPUTS = [prompt_of(1, 12), prompt_of(2, 40)]
# What a wrapper calls its text model, and what that calls all but its output layer.
_OUTER = ("language_model", "text_model")
_BODIES = ("model", "transformer", "backbone")
# The body of these gives logits: the states are solved from them and this output layer.
_OUTPUT_LAYERS = {
    "gemma3n": "model.language_model.embed_tokens",
    "gpt_neox": "model.embed_out",
    "lille-130m": "transformer.tok_embeddings",
    "phixtral": "lm_head.linear",
}
_CAPPED, _CAP = "model.language_model", COMMON["final_logit_softcapping"]


@pytest.mark.parametrize("name", chosen([n for n in architectures() if n not in METAL_ONLY], MLX))
def test_the_vectors_are_those_of_the_hidden_states(name: str) -> None:
    engine = opened(name, num_slots=1)
    vectors = {pooling: np.array(engine.embed(INPUTS, pooling)) for pooling in Pooling}
    engine.close()
    module = Reference(name).module
    for index, ids in enumerate(INPUTS):
        hidden = _hidden(module, ids, _OUTPUT_LAYERS.get(name))
        expected = {Pooling.MEAN: hidden.mean(0), Pooling.CLS: hidden[0], Pooling.LAST: hidden[-1]}
        for pooling, vector in expected.items():
            unit = vector / np.linalg.norm(vector)
            assert np.abs(vectors[pooling][index] - unit).max() < 1e-3


def _hidden(module: Any, ids: list[int], output: str | None) -> npt.NDArray[Any]:
    """The hidden states (tokens, width) after the last norm."""
    cache = make_prompt_cache(module)
    if output is None:
        return np.array(_body(module)(mx.array([ids]), cache=cache)[0], np.float64)
    layer = operator.attrgetter(output)(module)
    logits = module(mx.array([ids]), cache=cache)[0] - layer.get("bias", 0.0)
    if output.startswith(_CAPPED):
        logits = _CAP * mx.arctanh(logits / _CAP)
    return np.linalg.lstsq(np.array(layer.weight, np.float64), np.array(logits.T))[0].T


def _body(module: Any) -> Any:
    for name in _OUTER:
        module = getattr(module, name, module)
    return next(getattr(module, name) for name in _BODIES if hasattr(module, name))
