"""Log-probabilities, from the raw logits of a decode."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.engines.llama_cpp.binding import Pointer, lib

Logits = npt.NDArray[np.float32]

Scored = tuple[float, tuple[tuple[int, float], ...]]
"""The log-probability of a token, and the likeliest at its place as (token id, the same)."""


def logits_of(context: Pointer, row: int, vocab_size: int) -> Logits:
    """The raw logits of a row of the last batch: a view, valid until the next decode."""
    pointer = lib.llama_get_logits_ith(context, row)
    address = ctypes.cast(pointer, ctypes.c_void_p).value
    assert address is not None, f"row {row} has no logits"
    memory: Any = (ctypes.c_float * vocab_size).from_address(address)
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
