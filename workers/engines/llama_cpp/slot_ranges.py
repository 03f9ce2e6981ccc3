"""A range of KV cells for each slot.

No row of a call passes over the cells of others, which with many sequences is a third of a call's
time on a CPU; but a sequence can have no more than its range, and a common beginning is copied.
``seq_id`` is the number of the range. llama.cpp decodes neighbours together and reads the weights
anew for each group of them, so those that run should lie side by side.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence as ListLike

from workers.engines.llama_cpp.binding import Pointer
from workers.engines.llama_cpp.cache.memory import Filler, KvMemory
from workers.engines.llama_cpp.fourth_row import num_missing_rows, relative_time
from workers.engines.llama_cpp.sequence_state import StateBytes, for_ranges

_MIN_COPIED = 32  # tokens


class SlotRanges(KvMemory):
    """See ``KvMemory``; what is set aside stays where it is until its range is needed."""

    has_ranges = True

    def __init__(
        self, context: Pointer, longest: int, num_slots: int, *, has_fours: bool = False
    ) -> None:
        super().__init__(context, num_slots * longest, longest, has_fours=has_fours)
        self._num_slots = num_slots
        self._free = set(range(num_slots))
        self._live: set[int] = set()
        self._kept: dict[int, None] = {}  # the one that was set aside first is the first
        self._last_copy: tuple[int, StateBytes] | None = None

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
        self._live.remove(seq_id)
        self._kept[seq_id] = None
        return seq_id

    def take_back(self, seq_id: int) -> int:
        del self._kept[seq_id]
        self._live.add(seq_id)
        return seq_id

    def fillers(self, seq_ids: Collection[int], num_rows: int) -> list[Filler]:
        """Where one of each is decoded: rows between them and beside them, as far as they pay."""
        if num_rows > len(seq_ids):
            return []
        filled: list[int] = []
        for group in self._groups(seq_ids):
            filled += set(group).difference(seq_ids)
            if self.has_fours and num_missing_rows(len(group)):
                beside = [i for i in (group.stop, group.start - 1) if 0 <= i < self._num_slots]
                filled += set(beside[:1]).difference(seq_ids)
        lengths = {i: self.book.length(i) for i in filled}
        return [Filler(i, length) for i, length in lengths.items() if length < self.longest]

    def num_paddable(self, seq_ids: ListLike[int]) -> int:
        return self.longest - max(map(self.book.length, seq_ids))

    def are_apart(self, seq_ids: Collection[int]) -> bool:
        """Whether a call for them would be shorter if they were neighbours."""
        groups = self._groups(seq_ids)
        return sum(map(self._time, map(len, groups))) > self._time(len(seq_ids))

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
        self._forget_copy_of(seq_id)
        self._free.add(seq_id)

    def _copy_of(self, seq_id: int) -> StateBytes | None:
        """Its state; of several that want the same before the next call only the first copies."""
        if self._last_copy is None or self._last_copy[0] != seq_id:
            state = self.copy_out(seq_id)
            self._last_copy = None if state is None else (seq_id, state)
        return None if self._last_copy is None else self._last_copy[1]

    def _forget_copy_of(self, seq_id: int) -> None:
        if self._last_copy is not None and self._last_copy[0] == seq_id:
            self._last_copy = None

    def _groups(self, seq_ids: Collection[int]) -> list[range]:
        """Neighbours, and those that had better be decoded together with what is between them."""
        groups: list[range] = []
        for seq_id in sorted(seq_ids):
            group = range(seq_id, seq_id + 1)
            if groups:
                both = range(groups[-1].start, group.stop)
                if self._time(len(both)) <= self._time(len(groups[-1])) + self._time(1):
                    group = both
                    groups.pop()
            groups.append(group)
        return groups

    def _time(self, num_rows: int) -> float:
        return relative_time(num_rows, has_fours=self.has_fours)

    def _distance(self, seq_id: int) -> int:
        """From those that run; 0 between them."""
        if not self._live:
            return 0
        first, last = min(self._live), max(self._live)
        return max(first - seq_id, seq_id - last, 0)
