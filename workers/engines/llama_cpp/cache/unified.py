"""KV cells that all slots share, as ``kv_layout`` ``unified`` asks for.

Its sequences share cells for a common beginning, which costs nothing: only the cells' list of
owners changes. A context decodes the ids below its number of slots; the others, of which a unified
cache always has 256, serve to keep what has ended.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence as ListLike

from workers.engines.llama_cpp.binding import Pointer, lib
from workers.engines.llama_cpp.cache.memory import KvMemory, StateBytes

NUM_SEQ_IDS = 256  # LLAMA_MAX_SEQ


class UnifiedCells(KvMemory):
    """See ``KvMemory``; any sequence may have all of the cells."""

    is_per_slot = False

    def __init__(self, context: Pointer, num_cells: int, num_slots: int) -> None:
        super().__init__(context, num_cells, num_cells)
        self._num_slots = num_slots
        self._free_seq_ids = list(range(num_slots))
        # llama.cpp only decodes, and copies out, ids below n_seq_max: the slots and this one.
        self._gangway = num_slots
        self._free_aside = list(range(num_slots + 1, NUM_SEQ_IDS))

    @property
    def num_free_aside(self) -> int:
        return len(self._free_aside)

    def open_seq(self) -> int:
        return heapq.heappop(self._free_seq_ids)

    def branch(self, source: int, count: int) -> int:
        seq_id = self.open_seq()
        self._copy(source, seq_id, count)
        return seq_id

    def set_aside(self, seq_id: int) -> int:
        aside = heapq.heappop(self._free_aside)
        self._copy(seq_id, aside, self.book.length(seq_id))
        self.release(seq_id)
        return aside

    def take_back(self, seq_id: int) -> int:
        taken = self.branch(seq_id, self.book.length(seq_id))
        self.release(seq_id)
        return taken

    def is_worth_branching(self, source: int, count: int) -> bool:
        return count > 0

    def num_paddable(self, seq_ids: ListLike[int]) -> int:
        """A tile of several sequences' rows would be computed for all of their cells."""
        return self.num_free if len(seq_ids) == 1 else 0

    def copy_out(self, seq_id: int) -> StateBytes | None:
        lib.llama_memory_seq_cp(self._memory, seq_id, self._gangway, 0, self.book.length(seq_id))
        state = self._state_of(self._gangway)
        self.forget(self._gangway, 0)
        return state

    def _give_back(self, seq_id: int) -> None:
        heapq.heappush(self._free_seq_ids if seq_id < self._num_slots else self._free_aside, seq_id)

    def _copy(self, source: int, target: int, count: int) -> None:
        lib.llama_memory_seq_cp(self._memory, source, target, 0, count)
        self.book.share(source, target, count)
