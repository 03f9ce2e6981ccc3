"""The rows of a batch that draw by mirostat: on the host, in numpy, one by one.

Their draws wait for the device, which has no next step to work on meanwhile; the other rows of the
batch wait with them.
"""

from __future__ import annotations

from collections.abc import Sequence as ListLike
from typing import Protocol

import mlx.core as mx
import numpy as np

from jobs.contract.sampling import Sampling
from workers.engines import mirostat
from workers.engines.mlx.sampling.constrained_rows import Failures


class MirostatRow(Protocol):
    """What mirostat reads and writes of a running sequence."""

    mirostat_mu: float | None

    @property
    def sampling(self) -> Sampling: ...

    @property
    def position(self) -> int: ...


class MirostatRows:
    """Draws for those of ``rows`` that use mirostat, and moves their ``mirostat_mu``."""

    def __init__(self, rows: ListLike[MirostatRow]) -> None:
        self._rows = {i: row for i, row in enumerate(rows) if mirostat.is_used(row.sampling)}

    def draw(
        self, logits: mx.array, tokens: mx.array, failures: Failures
    ) -> tuple[mx.array, dict[int, float]]:
        """``tokens`` (rows,) with those of mirostat's rows in place, and the new ``mu`` of each.

        ``logits`` (rows, vocab) have bias and penalties applied. Adds to ``failures``.
        """
        if not self._rows:
            return tokens, {}
        indices = mx.array(list(self._rows))
        values = np.array(logits[indices], dtype=np.float64)
        drawn, mus = [], {}
        for found, (index, row) in zip(values, self._rows.items(), strict=True):
            mu = mirostat.first_mu(row.sampling) if row.mirostat_mu is None else row.mirostat_mu
            try:
                token, mu = mirostat.sample(found, row.sampling, row.position + 1, mu)
            except Exception as error:  # the row's own: the others get their tokens
                failures.setdefault(index, error)
                token = 0
            row.mirostat_mu = mus[index] = mu
            drawn.append(token)
        replaced = tokens.at[indices].add(mx.array(drawn, dtype=tokens.dtype) - tokens[indices])
        return replaced, mus
