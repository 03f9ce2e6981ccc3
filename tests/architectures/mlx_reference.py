"""A tiny MLX model of each architecture, and plain mlx_lm as the reference for its text."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence as ListLike
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model

from scripts.modelfiles.mlx_architectures import write_architecture
from tests.engines.driving import GREEDY, run, sequence
from tests.engines.tiny_mlx import byte_tokenizer
from workers.engines.base import EngineOptions
from workers.engines.mlx.engine import MlxEngine, open_mlx

# The order of sums differs between batches; the distance of unequal states is far larger.
NOISE = 0.02  # nats


@functools.cache
def folder_of(name: str) -> Path:
    """The model folder of an architecture, written once."""
    folder = write_architecture(_root() / name, name)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@functools.cache
def _root() -> Path:
    made = tempfile.TemporaryDirectory(prefix="architectures-")
    _kept.append(made)
    return Path(made.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


def opened(name: str, **options: Any) -> MlxEngine:
    """An engine on the model of this architecture."""
    given: dict[str, Any] = {"num_slots": 4, "prompt_cache_bytes": 1 << 30, **options}
    return open_mlx(folder_of(name), EngineOptions(**given), lambda fraction: None)


class Reference:
    """One sequence at a time in plain mlx_lm, read from its beginning."""

    def __init__(self, name: str) -> None:
        self.module, _ = load_model(folder_of(name))
        self.module.set_dtype(mx.float32)

    def text(self, prompt: ListLike[int], num: int) -> list[int]:
        """The ``num`` greedy tokens after ``prompt``."""
        steps = generate_step(mx.array(prompt), self.module, max_tokens=num)
        return [int(token) for token, _ in steps]

    def differs(self, prompt: ListLike[int], tokens: ListLike[int]) -> str | None:
        """What ``tokens`` have that this model would not say after ``prompt``; ``None``: nothing.

        A token whose log-probability is nearly the best one's may stand for it.
        """
        whole = mx.array([[*prompt, *tokens]])
        logits = self.module(whole, cache=make_prompt_cache(self.module))[0, len(prompt) - 1 : -1]
        said = mx.take_along_axis(logits, mx.array(tokens)[:, None], axis=-1)[:, 0]
        for place, gap in enumerate((logits.max(axis=-1) - said).tolist()):
            if not gap <= NOISE:
                return f"token {place} of {len(tokens)} is {gap:.3f} nats below the best one"
        return None

    def contradicts_itself(self, tokens: ListLike[int]) -> bool:
        """Whether logits depend on whether the text is read at once or token by token."""
        cache = make_prompt_cache(self.module)
        steps = [self.module(mx.array([[token]]), cache=cache)[0] for token in tokens]
        whole = self.module(mx.array([tokens]), cache=make_prompt_cache(self.module))[0]
        gaps = mx.abs(whole - mx.concatenate(steps))
        return bool(mx.nan_to_num(gaps, nan=0.0).max().item() > NOISE)  # some are banned: -inf


def prompt_of(seed: int, num_tokens: int, common: ListLike[int] = ()) -> list[int]:
    """A prompt of ``common`` and some ordinary tokens."""
    draws = np.random.default_rng(seed).integers(3, 250, num_tokens - len(common))
    return [*common, *(int(token) for token in draws)]


def texts(engine: MlxEngine, prompts: ListLike[ListLike[int]], num: int) -> list[list[int]]:
    """``num`` greedy tokens after each prompt, all submitted together."""
    return [found.ids for found in run(engine, [sequence(p, num, GREEDY) for p in prompts])]
