"""Filters by rank on the host, for a CPU: they find the likeliest tokens without sorting all.

Sorting 128,000 logits takes MLX 35 ms a row, this 1 to 2 ms: few are looked at, as long as those
have the probability that is asked for. These filters wait for the logits. A GPU has others: there
the next step is scheduled before this one has ended, and Metal sorts for a partition, too.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

MOST_BY_RANK = 1024
_FIRST_TRY = 1024
_GROWTH = 16


def keep_top_k(logits: mx.array, top_k: mx.array) -> mx.array:
    """``filters.keep_top_k`` for ``logits`` (rows, vocab) in the order of their tokens."""
    return _by_row(_drop_after_rank, logits, top_k)


def keep_top_p(logits: mx.array, top_p: mx.array) -> mx.array:
    """``filters.keep_top_p`` for ``logits`` (rows, vocab) in the order of their tokens."""
    return _by_row(_drop_after_mass, logits, top_p)


def _by_row(drop: Callable[[Floats, float], None], logits: mx.array, values: mx.array) -> mx.array:
    rows = np.array(logits)  # waits; a copy
    for row, value in zip(rows, np.array(values)[:, 0].tolist(), strict=True):
        drop(row, value)
    return mx.array(rows)


def _drop_after_rank(row: Floats, top_k: float) -> None:
    if top_k < len(row):
        num = int(top_k)
        _keep(row, np.partition(row, -num)[-num], num)


def _drop_after_mass(row: Floats, top_p: float) -> None:
    """Keep the smallest set of most likely tokens whose probability reaches ``top_p``."""
    if top_p >= 1.0:
        return
    highest = row.max()
    with np.errstate(invalid="ignore"):  # no token is possible
        mass = top_p * np.exp(row - highest).sum(dtype=np.float64)
    num = _FIRST_TRY
    while True:
        ranked = _ranked(row, num)
        with np.errstate(invalid="ignore"):
            sums = np.cumsum(np.exp(ranked - highest), dtype=np.float64)
        if sums[-1] >= mass or len(ranked) == len(row):
            break
        num *= _GROWTH
    last = min(int(np.searchsorted(sums, mass)), len(ranked) - 1)
    _keep(row, ranked[last], last + 1)


def _ranked(row: Floats, num: int) -> Floats:
    """The ``num`` highest of ``row``, or all, the highest first."""
    some = row if num >= len(row) else np.partition(row, -num)[-num:]
    return np.sort(some)[::-1]


def _keep(row: Floats, lowest: np.float32, num: int) -> None:
    """Drop all but the ``num`` likeliest, down to ``lowest``. Of equal ones the lower ids stay."""
    is_kept = row > lowest
    equal = np.flatnonzero(row == lowest)
    is_kept[equal[: num - np.count_nonzero(is_kept)]] = True
    row[~is_kept] = -np.inf
