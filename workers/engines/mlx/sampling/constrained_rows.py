"""The rows of a batch whose text follows a grammar: masks, made on the host.

A mask depends on the token before it, so the tokens of a step are read before the next step is
scheduled: the device waits meanwhile, for all rows of the batch. A row whose grammar raises gets a
token like any other, which is thrown away when it is read.
"""

from __future__ import annotations

from collections.abc import Sequence as ListLike
from typing import Protocol

import mlx.core as mx
import numpy as np

from workers.engines.base import Constraint
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
        self._num_rows = len(rows)
        self._constraints = {
            i: row.constraint for i, row in enumerate(rows) if row.constraint is not None
        }

    def mask(self, logits: mx.array, failures: Failures) -> mx.array:
        """``logits`` (rows, vocab) with what the grammars forbid dropped; adds to ``failures``."""
        if not self._constraints:
            return logits
        # The output layer may be wider than the vocabulary.
        allowed = np.ones((self._num_rows, logits.shape[-1]), np.bool_)
        for index, constraint in self._constraints.items():
            try:
                mask = constraint.allowed()
            except Exception as error:  # the row's own: the others get their tokens
                failures[index] = error
                continue
            if mask is not None:
                allowed[index] = False
                allowed[index, : len(mask)] = mask
        return mx.where(mx.array(allowed), logits, DROPPED)
