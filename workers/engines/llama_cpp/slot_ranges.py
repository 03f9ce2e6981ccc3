"""A range of KV cells for each slot.

No row of a call passes over the cells of others, which with many sequences is a third of a call's
time on a CPU; but a sequence can have no more than its range, and a common beginning is copied.
``seq_id`` is the number of the range. llama.cpp decodes neighbours together and reads the weights
anew for each group of them, so those that run should lie side by side.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

from workers.engines.llama_cpp.binding import Pointer
from workers.engines.llama_cpp.fourth_row import num_missing_rows
from workers.engines.llama_cpp.memory import FillerRow, KvMemory
from workers.engines.llama_cpp.sequence_state import StateBytes, for_ranges

_LONGEST_GAP = 3  # ranges between two of a group that are cheaper to decode along than to leave out
_MIN_COPIED = 32  # tokens


class SlotRanges(KvMemory):
    """See ``KvMemory``; what is set aside stays where it is until its range is needed."""

    has_ranges = True

    def __init__(self, context: Pointer, longest: int, num_slots: int) -> None:
        super().__init__(context, num_slots * longest, longest)
        self._num_slots = num_slots
        self._free = set(range(num_slots))
        self._live: set[int] = set()
        self._kept: dict[int, None] = {}  # the one that was set aside first is the first

    @property
    def num_free_shelves(self) -> int:
        return self._num_slots

    @property
    def in_the_way(self) -> int | None:
        """Which kept sequence should leave before the next one is opened, if any."""
        if not self._live:
            return None if self._free else next(iter(self._kept))
        best = min({*self._free, *self._kept}, key=lambda i: (self._distance(i), i in self._kept))
        return best if best in self._kept else None

    def open_seq(self) -> int:
        seq_id = min(self._free, key=lambda i: (self._distance(i), i))
        self._free.remove(seq_id)
        self._live.add(seq_id)
        return seq_id

    def branch(self, source: int, count: int) -> int:
        state = self.copy_out(source)
        seq_id = None if state is None else self.copy_in(state, self.book.length(source))
        if seq_id is None:
            return self.open_seq()
        self.truncate(seq_id, count)
        return seq_id

    def is_worth_branching(self, source: int, count: int) -> bool:
        return count >= max(_MIN_COPIED, self.book.length(source) // 4)

    def set_aside(self, seq_id: int) -> int:
        self._live.remove(seq_id)
        self._kept[seq_id] = None
        return seq_id

    def take_back(self, seq_id: int) -> int:
        del self._kept[seq_id]
        self._live.add(seq_id)
        return seq_id

    def fillers(
        self, seq_ids: Collection[int], num_rows: int, *, wants_fourth: bool
    ) -> list[FillerRow]:
        """Where one of each is decoded: rows that make neighbours of them, and a fourth one."""
        if num_rows > len(seq_ids):
            return []
        places = sorted(seq_ids)
        gaps = [range(one + 1, other) for one, other in pairwise(places)]
        filled = [i for gap in gaps if len(gap) <= _LONGEST_GAP for i in gap]
        if wants_fourth and num_missing_rows(num_rows + len(filled)):
            beside = [i for i in (places[-1] + 1, places[0] - 1) if 0 <= i < self._num_slots]
            filled += beside[:1]
        lengths = {i: self.book.length(i) for i in filled}
        return [FillerRow(i, length) for i, length in lengths.items() if length < self.longest]

    def move(self, seq_id: int) -> int:
        """The sequence beside the others that run, or where it was if it cannot be copied."""
        state = self.copy_out(seq_id)
        moved = None if state is None else self.copy_in(state, self.book.length(seq_id))
        if moved is None:
            return seq_id
        self.release(seq_id)
        return moved

    def copy_out(self, seq_id: int) -> StateBytes | None:
        return self._state_of(seq_id)

    def adapted(self, state: StateBytes) -> StateBytes:
        return for_ranges(state, self._num_slots)

    def _give_back(self, seq_id: int) -> None:
        self._live.discard(seq_id)
        self._kept.pop(seq_id, None)
        self._free.add(seq_id)

    def _distance(self, seq_id: int) -> int:
        """From those that run; 0 between them."""
        if not self._live:
            return 0
        first, last = min(self._live), max(self._live)
        return max(first - seq_id, seq_id - last, 0)
