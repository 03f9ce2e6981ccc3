"""Our mirostat keeps the tokens that llama.cpp's keeps, and moves its mu alike."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from workers.engines import mirostat

llama_cpp = pytest.importorskip("llama_cpp")

TAU, ETA, VOCAB_SIZE = 3.0, 0.2, 500


@contextmanager
def theirs(mode: int) -> Iterator[Any]:
    if mode == 1:
        sampler = llama_cpp.llama_sampler_init_mirostat(VOCAB_SIZE, 7, TAU, ETA, 100)
    else:
        sampler = llama_cpp.llama_sampler_init_mirostat_v2(7, TAU, ETA)
    yield sampler
    llama_cpp.llama_sampler_free(sampler)


def apply(sampler: Any, logits: np.ndarray) -> tuple[set[int], float]:
    """The tokens that it keeps, and the probability of the one that it draws among them."""
    entries = (llama_cpp.llama_token_data * VOCAB_SIZE)(
        *(llama_cpp.llama_token_data(i, float(value), 0.0) for i, value in enumerate(logits))
    )
    array = llama_cpp.llama_token_data_array(entries, VOCAB_SIZE, -1, False)
    llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
    kept = [array.data[i] for i in range(array.size)]
    return {entry.id for entry in kept}, kept[array.selected].p


@pytest.mark.parametrize("mode", [1, 2])
def test_what_is_kept_is_what_llama_cpp_keeps(mode: int) -> None:
    random = np.random.default_rng(mode)
    mu, sizes = 2 * TAU, set()
    with theirs(mode) as sampler:
        for _ in range(200):
            logits = random.choice([0.3, 1.0, 3.0]) * random.standard_normal(VOCAB_SIZE)
            kept, chosen = apply(sampler, logits)
            exps = np.exp(logits)
            ours = mirostat.candidates(exps / exps.sum(), mode, mu)
            assert len(set(ours.tolist()) ^ kept) <= 1  # float32 there: the last may differ
            sizes.add(len(kept))
            mu -= ETA * (-math.log2(chosen) - TAU)
    assert len(sizes) > 10
