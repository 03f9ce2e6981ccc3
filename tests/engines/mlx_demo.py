"""The demo model in the MLX engine, and what it says to its held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence as ListLike
from pathlib import Path
from typing import Any

from jobs.contract.sampling import Sampling
from tests.engines import tiny_mlx
from tests.engines.driving import Transcript, run
from tests.engines.test_demo_model import HELD_OUT, to_prompt
from workers.engines.base import Engine, Sequence
from workers.engines.mlx.engine import MlxEngine
from workers.generation.prompts import PromptEncoder

DEMO = Path(__file__).parents[2] / "models" / "demo"
GREEDY = Sampling(temperature=0.0)


def open_demo(**options: Any) -> MlxEngine:
    return tiny_mlx.opened(DEMO, **options)


def held_out(engine: Engine, every: int = 1) -> list[list[int]]:
    """The token ids of every so-manieth held-out prompt."""
    encoder = PromptEncoder(engine.tokenizer, None)
    return [encoder.encode(to_prompt(entry)) for entry in HELD_OUT[::every]]


def transcripts(
    engine: Engine, prompts: ListLike[list[int]], max_tokens: int = 100, sampling: Sampling = GREEDY
) -> list[Transcript]:
    """What is said to each prompt, all submitted at once."""
    return run(engine, [Sequence(i, p, max_tokens, sampling) for i, p in enumerate(prompts)])


def answers(
    engine: Engine, prompts: ListLike[list[int]], max_tokens: int = 100, sampling: Sampling = GREEDY
) -> list[list[int]]:
    """The tokens said to each prompt."""
    return [found.ids for found in transcripts(engine, prompts, max_tokens, sampling)]
