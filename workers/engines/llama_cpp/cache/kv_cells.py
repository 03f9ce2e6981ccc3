"""Which KV cells are free, and which ones each sequence holds."""

from __future__ import annotations

import numpy as np


class KvCells:
    """Cells by ``seq_id``; a shared cell counts once.

    llama.cpp does not report how many cells are free, and a decode pass without enough cells fails
    for all of its sequences. So they are counted here, in the same way.
    """

    def __init__(self, num_cells: int) -> None:
        self._free = list(range(num_cells))
        self._num_owners = np.zeros(num_cells, np.int32)
        self._cells: dict[int, list[int]] = {}

    @property
    def num_free(self) -> int:
        return len(self._free)

    def length(self, seq_id: int) -> int:
        """Number of the sequence's tokens."""
        return len(self._cells.get(seq_id, ()))

    def of(self, seq_id: int) -> list[int]:
        """The sequence's cells, in the order of its tokens."""
        return self._cells.get(seq_id, [])

    def num_unshared(self, seq_id: int) -> int:
        """How many of the sequence's cells belong to no other sequence."""
        return int((self._num_owners[self.of(seq_id)] == 1).sum())

    def extend(self, seq_id: int, count: int) -> None:
        """Add ``count`` tokens, each in a free cell."""
        cells = self._cells.setdefault(seq_id, [])
        if count == 1:  # the usual case: avoids numpy's indexing with a list, which is slow
            cell = self._free.pop()
            self._num_owners[cell] = 1
            cells.append(cell)
            return
        first = len(self._free) - count
        assert first >= 0, "more tokens than free cells"
        taken = self._free[first:]
        del self._free[first:]
        self._num_owners[taken] = 1
        cells.extend(taken)

    def share(self, source: int, target: int, count: int) -> None:
        """Let the empty ``target`` share the cells of the first ``count`` tokens of ``source``."""
        shared = self._cells[source][:count]
        self._num_owners[shared] += 1
        self._cells[target] = shared

    def truncate(self, seq_id: int, count: int) -> None:
        """Keep only the sequence's first ``count`` tokens."""
        cells = self._cells.get(seq_id, [])
        dropped = np.asarray(cells[count:], np.intp)
        del cells[count:]
        self._num_owners[dropped] -= 1
        self._free.extend(dropped[self._num_owners[dropped] == 0].tolist())
