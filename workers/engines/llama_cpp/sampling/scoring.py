"""Log-probabilities, from the raw logits of a decode."""

from __future__ import annotations

import ctypes
import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.engines.llama_cpp.binding import Pointer, logits_address

Logits = npt.NDArray[np.float32]

Scored = tuple[float, tuple[tuple[int, float], ...]]
"""The log-probability of a token, and the likeliest at its place as (token id, the same)."""


def logits_of(context: Pointer, row: int, vocab_size: int) -> Logits:
    """The raw logits of a row of the last batch: a view, valid until the next decode."""
    address = logits_address(context, row)
    assert address is not None, f"row {row} has no logits"
    return _floats_at(address, vocab_size)


@lru_cache(maxsize=256)
def _floats_at(address: int, count: int) -> Logits:
    """A row is where it was a step ago, and a view of it takes longer to make than to search."""
    memory: Any = (ctypes.c_float * count).from_address(address)
    return np.frombuffer(memory, np.float32)


def score(logits: Logits, token: int, num_top: int) -> Scored:
    """Log-probability of ``token`` and the ``num_top`` most likely tokens."""
    largest = float(logits.max())
    normalizer = largest + math.log(float(np.exp(logits - largest).sum(dtype=np.float64)))
    top = tuple((i, float(logits[i]) - normalizer) for i in _most_likely(logits, num_top))
    return float(logits[token]) - normalizer, top


def _most_likely(logits: Logits, count: int) -> list[int]:
    """Ids of the ``count`` largest, largest first, the smaller id first among equals."""
    count = min(count, len(logits))
    if count == 0:
        return []
    candidates = np.argpartition(logits, -count)[-count:].tolist()
    return sorted(candidates, key=lambda i: (-logits[i], i))
