"""How many KV cells are free, and which sequence holds how many."""

from __future__ import annotations

import numpy as np


class KvCells:
    """Cells by ``seq_id``, shared ones counted once.

    llama.cpp tells nobody how many cells are free, and a decode that finds none fails for all of
    its sequences; so they are counted here, as it counts them.
    """

    def __init__(self, num_cells: int) -> None:
        self._free = list(range(num_cells))
        self._num_owners = np.zeros(num_cells, np.int32)
        self._cells: dict[int, list[int]] = {}

    @property
    def num_free(self) -> int:
        return len(self._free)

    def length(self, seq_id: int) -> int:
        """Tokens that the sequence holds."""
        return len(self._cells.get(seq_id, ()))

    def cells(self, seq_id: int) -> list[int]:
        """The sequence's cells, in the order of its tokens."""
        return self._cells.get(seq_id, [])

    def num_own(self, seq_id: int) -> int:
        """How many of the sequence's cells nobody shares."""
        return int((self._num_owners[self.cells(seq_id)] == 1).sum())

    def extend(self, seq_id: int, count: int) -> None:
        """``count`` more tokens, each in a free cell."""
        cells = self._cells.setdefault(seq_id, [])
        if count == 1:  # what a step adds; a list as an index would cost as much as all of this
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
        """The first ``count`` tokens of ``source`` belong to the empty ``target`` too."""
        shared = self._cells[source][:count]
        self._num_owners[shared] += 1
        self._cells[target] = shared

    def truncate(self, seq_id: int, count: int) -> None:
        """The sequence keeps its first ``count`` tokens."""
        cells = self._cells.get(seq_id, [])
        dropped = np.asarray(cells[count:], np.intp)
        del cells[count:]
        self._num_owners[dropped] -= 1
        self._free.extend(dropped[self._num_owners[dropped] == 0].tolist())
