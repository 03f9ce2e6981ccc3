"""All slots share the KV cells: ``kv_layout`` ``unified``.

Sequences with a common prefix share its cells at no cost: only the cells' lists of owners change.
The slots use the ids from 0; a unified cache has 256 ids, and the rest keep ended sequences.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence as ListLike

from workers.engines.llama_cpp.binding import Pointer, lib
from workers.engines.llama_cpp.cache.memory import Allow, KvMemory, StateBytes

NUM_SEQ_IDS = 256  # LLAMA_MAX_SEQ


class UnifiedCells(KvMemory):
    """See ``KvMemory``; one sequence may use all of the cells."""

    is_per_slot = False

    def __init__(self, context: Pointer, num_cells: int, num_slots: int) -> None:
        super().__init__(context, num_cells, num_cells)
        self._num_slots = num_slots
        self._free_seq_ids = list(range(num_slots))
        # llama.cpp decodes and copies out only ids below n_seq_max: the slots' and this one.
        self._copy_id = num_slots
        self._free_kept_ids = list(range(num_slots + 1, NUM_SEQ_IDS))
        self.idle_id = self._free_kept_ids[-1]

    @property
    def num_free_kept_ids(self) -> int:
        return len(self._free_kept_ids)

    def open_seq(self) -> int:
        return heapq.heappop(self._free_seq_ids)

    def branch(self, source: int, count: int) -> int:
        seq_id = self.open_seq()
        self._copy(source, seq_id, count)
        return seq_id

    def keep(self, seq_id: int) -> int:
        kept = heapq.heappop(self._free_kept_ids)
        self._copy(seq_id, kept, self.cells.length(seq_id))
        self.release(seq_id)
        return kept

    def resume(self, seq_id: int) -> int:
        resumed = self.branch(seq_id, self.cells.length(seq_id))
        self.release(seq_id)
        return resumed

    def is_worth_branching(self, source: int, count: int) -> bool:
        return count > 0

    def num_paddable(self, seq_ids: ListLike[int]) -> int:
        """See ``KvMemory``; 0 for several: a tile of their rows is computed for all their cells."""
        return self.num_free if len(seq_ids) == 1 else 0

    def copy_out(self, seq_id: int, allow: Allow | None = None) -> StateBytes | None:
        if seq_id < self._num_slots:
            return self._state_of(seq_id, allow)
        lib.llama_memory_seq_cp(self._memory, seq_id, self._copy_id, 0, self.cells.length(seq_id))
        state = self._state_of(self._copy_id, allow)
        self.remove_uncounted(self._copy_id, 0)
        return state

    def _free_id(self, seq_id: int) -> None:
        is_slot = seq_id < self._num_slots
        heapq.heappush(self._free_seq_ids if is_slot else self._free_kept_ids, seq_id)

    def _copy(self, source: int, target: int, count: int) -> None:
        lib.llama_memory_seq_cp(self._memory, source, target, 0, count)
        self.cells.share(source, target, count)
