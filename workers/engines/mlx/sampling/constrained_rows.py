"""The rows of a batch whose text follows a grammar: masks, made on the host.

A mask depends on the token before it, so the tokens of a step are read before the next draw is
scheduled; meanwhile the device computes the pass before that draw. A row whose grammar raises gets
a token like any other, which is thrown away when it is read.
"""

from __future__ import annotations

from collections.abc import Sequence as ListLike
from typing import Protocol

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from workers.engines.base import Constraint
from workers.engines.mlx import device
from workers.engines.mlx.sampling.filters import DROPPED

Failures = dict[int, Exception]
"""By row: why nothing could be drawn for it."""


class ConstrainedRow(Protocol):
    """What is read of a running sequence."""

    @property
    def constraint(self) -> Constraint | None: ...


class ConstrainedRows:
    """Masks for those of ``rows`` that have a grammar."""

    def __init__(self, rows: ListLike[ConstrainedRow]) -> None:
        self._constraints = {
            i: row.constraint for i, row in enumerate(rows) if row.constraint is not None
        }
        # Rows without a grammar share the mask that follows the others.
        places = {row: place for place, row in enumerate(self._constraints)}
        self._places = mx.array([places.get(i, len(places)) for i in range(len(rows))])
        # A CPU has the array where it is, and takes longer to unpack it.
        self._to_device = _unpacked if device.is_gpu() else mx.array

    def mask(self, logits: mx.array, failures: Failures) -> mx.array:
        """``logits`` (rows, vocab) with what the grammars forbid dropped; adds to ``failures``."""
        if not self._constraints:
            return logits
        # The output layer may be wider than the vocabulary.
        allowed = np.ones((len(self._constraints) + 1, logits.shape[-1]), np.bool_)
        for place, (index, constraint) in enumerate(self._constraints.items()):
            try:
                mask = constraint.allowed()
            except Exception as error:  # the row's own: the others get their tokens
                failures[index] = error
                continue
            if mask is not None:
                allowed[place] = False
                allowed[place, : len(mask)] = mask
        return mx.where(self._to_device(allowed)[self._places], logits, DROPPED)


def _unpacked(allowed: npt.NDArray[np.bool_]) -> mx.array:
    """``allowed`` (rows, vocab) on the device; masks are sent in each step, as one bit a token."""
    words = mx.array(np.packbits(allowed, axis=-1, bitorder="little"))
    bits = (words[:, :, None] >> mx.arange(8, dtype=mx.uint8)) & 1
    return bits.reshape(len(words), -1)[:, : allowed.shape[-1]] > 0
