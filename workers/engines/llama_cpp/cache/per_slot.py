"""Each slot has its own KV cells: ``kv_layout`` ``per_slot``.

The attention of a row passes over no other sequence's cells, and each slot holds a whole context.
On the other hand, a common prefix is copied, and all cells are reserved. ``seq_id`` is the number
of the slot.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence as ListLike

from workers.engines.llama_cpp.binding import Pointer
from workers.engines.llama_cpp.cache.memory import Allow, KvMemory, StateBytes

_MIN_COPIED = 32  # tokens; prefill of fewer is faster than a copy


class PerSlotCells(KvMemory):
    """See ``KvMemory``; a kept sequence stays in its slot until that is needed."""

    is_per_slot = True

    def __init__(self, context: Pointer, max_length: int, num_slots: int) -> None:
        super().__init__(context, num_slots * max_length, max_length)
        self._num_slots = num_slots
        self._free = list(range(num_slots))
        self._kept: dict[int, None] = {}  # a set of ids, in the order in which they were kept
        self._last_copy: tuple[int, StateBytes] | None = None

    @property
    def num_free_kept_ids(self) -> int:
        return self._num_slots

    @property
    def seq_to_evict(self) -> int | None:
        """The kept sequence that must be evicted before the next one is opened, if any."""
        return None if self._free else next(iter(self._kept))

    def open_seq(self) -> int:
        return heapq.heappop(self._free)

    def branch(self, source: int, count: int) -> int:
        state = self._copy_of(source)
        seq_id = None if state is None else self.copy_in(state, self.cells.length(source))
        if seq_id is None:
            return self.open_seq()
        self.truncate(seq_id, count)
        return seq_id

    def can_branch(self, source: int, count: int) -> bool:
        """See ``KvMemory``; a copy with a sliding window has no more than the last window."""
        return self.traits.can_cut_anywhere or count == self.cells.length(source)

    def is_worth_branching(self, source: int, count: int) -> bool:
        return count >= max(_MIN_COPIED, self.cells.length(source) // 4)

    def note_decoded(self, seq_id: int, count: int) -> None:
        super().note_decoded(seq_id, count)
        self._last_copy = None

    def truncate(self, seq_id: int, count: int) -> bool:
        self._forget_copy_of(seq_id)
        return super().truncate(seq_id, count)

    def keep(self, seq_id: int) -> int:
        self._kept[seq_id] = None
        return seq_id

    def resume(self, seq_id: int) -> int:
        del self._kept[seq_id]
        return seq_id

    def num_paddable(self, seq_ids: ListLike[int]) -> int:
        return self.max_length - max(map(self.cells.length, seq_ids))

    def copy_out(self, seq_id: int, allow: Allow | None = None) -> StateBytes | None:
        return self._state_of(seq_id, allow)

    def _free_id(self, seq_id: int) -> None:
        self._kept.pop(seq_id, None)
        self._forget_copy_of(seq_id)
        heapq.heappush(self._free, seq_id)

    def _copy_of(self, seq_id: int) -> StateBytes | None:
        """The sequence's state; calls before the next decode pass return the same copy."""
        if self._last_copy is None or self._last_copy[0] != seq_id:
            state = self.copy_out(seq_id)
            self._last_copy = None if state is None else (seq_id, state)
        return None if self._last_copy is None else self._last_copy[1]

    def _forget_copy_of(self, seq_id: int) -> None:
        if self._last_copy is not None and self._last_copy[0] == seq_id:
            self._last_copy = None
