"""Turns of reading and decoding, where one pass had better not do both.

Attention in tiles is computed for all cells that any row of a tile looks at: in a pass of both
every row pays for every sequence's cells (64 + 14 rows: 700 ms; apart: 250 ms). See docs/adr/0009.
"""

from __future__ import annotations

from workers.engines.llama_cpp.batch.prefill_budget import BUDGETS_PER_PASS

_PER_READER = 2
_AT_MOST = 8


class Interleaving:
    """How much is read between two steps of decoding.

    One budget of a lone prompt: that is how long those that run have to wait. Of several two for
    each, of eight at most: that many more wait for their first token, and few rows are decoded at
    a price per row that is up to twice that of many.
    """

    def __init__(self) -> None:
        self._num_read = 0

    def next(self, num_readers: int) -> int:
        """Budgets that the next pass may read, beside ``num_readers``; 0 for a step of decoding."""
        owed = num_readers if num_readers < 2 else min(_PER_READER * num_readers, _AT_MOST)
        num_budgets = min(owed - self._num_read, BUDGETS_PER_PASS)
        if num_budgets <= 0:
            self._num_read = 0
            return 0
        self._num_read += num_budgets
        return num_budgets
