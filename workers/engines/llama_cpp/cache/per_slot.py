"""KV cells of its own for each slot, as ``kv_layout`` ``per_slot`` asks for.

No row passes over the cells of other sequences, and each slot's cells hold a whole context; in
return a common beginning is copied, and the cells are reserved. ``seq_id`` is the slot's number.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence as ListLike

from workers.engines.llama_cpp.binding import Pointer
from workers.engines.llama_cpp.cache.memory import KvMemory, StateBytes

_MIN_COPIED = 32  # tokens


class PerSlotCells(KvMemory):
    """See ``KvMemory``; what is set aside stays in its slot until that is needed."""

    is_per_slot = True

    def __init__(self, context: Pointer, longest: int, num_slots: int) -> None:
        super().__init__(context, num_slots * longest, longest)
        self._num_slots = num_slots
        self._free = list(range(num_slots))
        self._kept: dict[int, None] = {}  # the one that was set aside first is the first
        self._last_copy: tuple[int, StateBytes] | None = None

    @property
    def num_free_aside(self) -> int:
        return self._num_slots

    @property
    def in_the_way(self) -> int | None:
        """Which kept sequence must leave before the next one is opened, if any."""
        return None if self._free else next(iter(self._kept))

    def open_seq(self) -> int:
        return heapq.heappop(self._free)

    def branch(self, source: int, count: int) -> int:
        state = self._copy_of(source)
        seq_id = None if state is None else self.copy_in(state, self.book.length(source))
        if seq_id is None:
            return self.open_seq()
        self.truncate(seq_id, count)
        return seq_id

    def is_worth_branching(self, source: int, count: int) -> bool:
        return count >= max(_MIN_COPIED, self.book.length(source) // 4)

    def note_decoded(self, seq_id: int, count: int) -> None:
        super().note_decoded(seq_id, count)
        self._last_copy = None

    def truncate(self, seq_id: int, count: int) -> bool:
        self._forget_copy_of(seq_id)
        return super().truncate(seq_id, count)

    def set_aside(self, seq_id: int) -> int:
        self._kept[seq_id] = None
        return seq_id

    def take_back(self, seq_id: int) -> int:
        del self._kept[seq_id]
        return seq_id

    def num_paddable(self, seq_ids: ListLike[int]) -> int:
        return self.longest - max(map(self.book.length, seq_ids))

    def copy_out(self, seq_id: int) -> StateBytes | None:
        return self._state_of(seq_id)

    def _give_back(self, seq_id: int) -> None:
        self._kept.pop(seq_id, None)
        self._forget_copy_of(seq_id)
        heapq.heappush(self._free, seq_id)

    def _copy_of(self, seq_id: int) -> StateBytes | None:
        """Its state; of several that ask before the next decode pass only the first copies."""
        if self._last_copy is None or self._last_copy[0] != seq_id:
            state = self.copy_out(seq_id)
            self._last_copy = None if state is None else (seq_id, state)
        return None if self._last_copy is None else self._last_copy[1]

    def _forget_copy_of(self, seq_id: int) -> None:
        if self._last_copy is not None and self._last_copy[0] == seq_id:
            self._last_copy = None
