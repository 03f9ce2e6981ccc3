"""States of prefixes that left the KV pool: in memory, and on disk if a folder is given.

A kept prefix slows every step while it lies in the pool (with 11,000 idle cells, 16 rows of a 0.5 B
model decoded at half the speed on a CPU), so only a few stay there. Copying one out and back takes
milliseconds, reading its text again takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.engines.llama_cpp.batch.decode_batch import IntArray
from workers.engines.llama_cpp.cache.memory import KvMemory
from workers.engines.llama_cpp.cache.prefixes import Kept, num_common
from workers.engines.llama_cpp.cache.spill import Spill, SpilledState

MIN_TOKENS = 64  # less is sooner read than copied


@dataclass(eq=False, slots=True)
class CachedState:
    """The state after ``tokens``: its bytes, or the file they are in."""

    tokens: IntArray
    adapter: str | None
    state: npt.NDArray[np.uint8] | None
    file: SpilledState | None = None
    last_used: int = 0

    @property
    def num_bytes(self) -> int:
        return 0 if self.state is None else len(self.state)


class HostCache:
    """At most ``max_bytes`` of states in memory; what leaves goes to ``spill``, if there is one."""

    def __init__(
        self, memory: KvMemory, max_bytes: int, *, can_trim: bool, spill: Spill | None = None
    ) -> None:
        self._memory = memory
        self._max_bytes = max_bytes
        self._can_trim = can_trim
        self._spill = spill
        self._clock = 0
        found: Iterable[SpilledState] = () if spill is None else spill.states
        self._entries = [CachedState(one.tokens, one.adapter, None, one) for one in found]

    @property
    def num_bytes(self) -> int:
        """Bytes in memory."""
        return sum(entry.num_bytes for entry in self._entries)

    def put(self, kept: Kept) -> None:
        """Copy what the sequence holds; shorter ones that it covers leave."""
        if len(kept.tokens) < MIN_TOKENS or self._covers(kept):
            return
        state = self._memory.copy_out(kept.seq_id)
        if state is None or len(state) > self._max_bytes:
            return
        if self._can_trim:
            self._drop_beginnings_of(kept)
        entry = CachedState(kept.tokens, kept.adapter, state)
        self._touch(entry)
        self._entries.append(entry)
        self._make_room()

    def find(self, tokens: IntArray, adapter: str | None) -> tuple[CachedState | None, int]:
        """The entry with the longest common beginning, and that beginning's usable length."""
        best, best_length = None, 0
        for entry in self._entries:
            if entry.adapter != adapter:
                continue
            length = num_common(entry.tokens, tokens)
            if length > best_length and (self._can_trim or length == len(entry.tokens)):
                best, best_length = entry, length
        if best is not None:
            self._touch(best)
        return best, best_length

    def restore(self, entry: CachedState) -> int | None:
        """A new sequence of the pool with the entry's tokens; ``None`` when that failed."""
        if entry.state is None and (entry.file is None or not self._read(entry)):
            return None  # it had to leave for another one in the meantime
        assert entry.state is not None
        seq_id = self._memory.copy_in(entry.state, len(entry.tokens))
        self._touch(entry)
        self._make_room()
        return seq_id

    def close(self) -> None:
        """What is in memory goes to disk, the most useful last."""
        if self._spill is None:
            return
        for entry in sorted(self._entries, key=lambda entry: entry.last_used):
            self._write(entry)

    def _read(self, entry: CachedState) -> bool:
        assert self._spill is not None
        assert entry.file is not None
        entry.state = self._spill.read(entry.file)
        if entry.state is None:
            self._entries.remove(entry)
            return False
        return True

    def _write(self, entry: CachedState) -> None:
        if self._spill is not None and entry.file is None and entry.state is not None:
            entry.file = self._spill.write(entry.tokens, entry.adapter, entry.state)

    def _make_room(self) -> None:
        while self.num_bytes > self._max_bytes:
            in_memory = (entry for entry in self._entries if entry.state is not None)
            oldest = min(in_memory, key=lambda entry: entry.last_used)
            self._write(oldest)
            oldest.state = None
            if oldest.file is None:
                self._entries.remove(oldest)
        if self._spill is not None:
            gone = [e for e in self._entries if e.state is None and not self._spill.has(e.file)]
            self._entries = [entry for entry in self._entries if entry not in gone]

    def _covers(self, kept: Kept) -> bool:
        entry, length = self.find(kept.tokens, kept.adapter)
        if entry is None or length < len(kept.tokens):
            return False
        self._touch(entry)
        return True

    def _drop_beginnings_of(self, kept: Kept) -> None:
        for entry in list(self._entries):
            is_covered = num_common(entry.tokens, kept.tokens) == len(entry.tokens)
            if is_covered and entry.adapter == kept.adapter:
                self._entries.remove(entry)
                if self._spill is not None and entry.file is not None:
                    self._spill.remove(entry.file)

    def _touch(self, entry: CachedState) -> None:
        self._clock += 1
        entry.last_used = self._clock
