"""Kept KV state of ended sequences, found again by the longest common beginning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from workers.engines.llama_cpp.batch.decode_batch import IntArray
from workers.engines.llama_cpp.cache.memory import KvMemory

MAX_KEPT = 64  # a look-up compares with each of them
MIN_KEPT_TOKENS = 16
# Rows of decoding that pass over an idle cell until they have cost about what copying it out does:
# 1.4 µs a row, 17 to 250 µs the copy (0.5 B model on a CPU; most where memory is touched first).
ROWS_PER_COPY = 128
_READ_PER_ROW = 6  # prompt tokens pass over idle cells in tiles: so many in the time of one row


def num_common(one: IntArray, other: IntArray) -> int:
    """Length of the common beginning."""
    length = min(len(one), len(other))
    differs = one[:length] != other[:length]
    place = int(differs.argmax()) if length else 0
    return place if length and differs[place] else length


@dataclass(eq=False, slots=True)
class Kept:
    """What the model remembers of ``tokens``, read with an adapter (``None``: without)."""

    seq_id: int
    tokens: IntArray
    adapter: str | None
    last_used: int = 0
    num_passed: float = 0
    """Rows of decoding that it was, or will have been, in the way of."""


def rows_foreseen(num_read: int, num_generated: int) -> float:
    """In how much decoding, in rows, idle cells will be in the way of a sequence that starts.

    It has ``num_read`` tokens to read and is reckoned to generate ``num_generated``.
    """
    return num_read / _READ_PER_ROW + num_generated


OnEvicted = Callable[[Kept], None]


class PrefixCache:
    """Kept sequences within ``max_cells`` of the pool; the least recently used leave first.

    They live in cells that nobody else needs: ``evict`` frees them for who does. ``can_trim``:
    the model's memory can be cut anywhere; else only whole entries are of use. ``on_evicted`` is
    told who has to leave, while its state is still there.
    """

    def __init__(
        self,
        memory: KvMemory,
        max_cells: int,
        *,
        can_trim: bool = True,
        on_evicted: OnEvicted | None = None,
    ) -> None:
        self.can_trim = can_trim
        self._memory = memory
        self._max_cells = max_cells
        self._on_evicted = on_evicted
        self._entries: list[Kept] = []
        self._num_keepers = np.zeros(memory.num_cells, np.int32)
        self._clock = 0
        self.num_cells = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> list[Kept]:
        """All that is kept."""
        return list(self._entries)

    def find(self, tokens: IntArray, adapter: str | None) -> tuple[Kept | None, int]:
        """The entry with the longest common beginning, and that beginning's usable length."""
        best, best_length = None, 0
        for entry in self._entries:
            if entry.adapter != adapter:
                continue
            length = num_common(entry.tokens, tokens)
            if length > best_length and (self.can_trim or length == len(entry.tokens)):
                best, best_length = entry, length
        if best is not None:
            self._touch(best)
        return best, best_length

    def keep(self, seq_id: int, tokens: IntArray, adapter: str | None) -> None:
        """Take over a sequence that holds ``tokens``; it is free afterwards, kept or not."""
        if self._max_cells == 0 or len(tokens) < MIN_KEPT_TOKENS or self._covers(tokens, adapter):
            self._memory.release(seq_id)
            return
        if self.can_trim:
            self._drop_beginnings_of(tokens, adapter)
        if not self._memory.num_free_aside and not self.evict():
            self._memory.release(seq_id)  # all ids are slots
            return
        entry = Kept(self._memory.set_aside(seq_id), tokens.copy(), adapter)
        self._touch(entry)
        self._entries.append(entry)
        cells = self._memory.book.cells(entry.seq_id)
        self.num_cells += int((self._num_keepers[cells] == 0).sum())
        self._num_keepers[cells] += 1
        while self.num_cells > self._max_cells or len(self._entries) > MAX_KEPT:
            self.evict()

    def drop(self, entry: Kept) -> None:
        """Forget an entry."""
        self._forget(entry)
        self._memory.release(entry.seq_id)

    def evict(self, spared: Kept | None = None) -> bool:
        """Free the cells of the least recently used entry; False when there is none."""
        candidates = [entry for entry in self._entries if entry is not spared]
        if not candidates:
            return False
        self._leave(min(candidates, key=lambda entry: entry.last_used))
        return True

    def clear_idle(self, num_rows: float, spared: Kept | None) -> None:
        """A sequence of about so many rows of decoding is to start: each passes over what is kept.

        Those whose cells mostly serve nobody else are evicted once they are in the way for as long
        as their copying takes, which holds up all that run. Now is the time: llama.cpp looks at
        all cells up to the last one in use, so cells that become free later save little.
        """
        for entry in self.entries:
            if entry is spared or 2 * self._memory.book.num_own(entry.seq_id) < len(entry.tokens):
                continue
            entry.num_passed += num_rows
            if entry.num_passed >= ROWS_PER_COPY:
                self._leave(entry)

    def evict_seq(self, seq_id: int) -> None:
        """Free the cells of the entry under this id."""
        self._leave(next(entry for entry in self._entries if entry.seq_id == seq_id))

    def take(self, entry: Kept, count: int) -> int:
        """A sequence with the entry's first ``count`` tokens; the entry is no more.

        Where it has much to lose, ``on_evicted`` is told.
        """
        if len(entry.tokens) - count >= MIN_KEPT_TOKENS and self._on_evicted is not None:
            self._on_evicted(entry)
        self._forget(entry)
        seq_id = self._memory.take_back(entry.seq_id)
        self._memory.truncate(seq_id, count)
        return seq_id

    def evict_all(self) -> None:
        """Empty the pool of kept prefixes."""
        while self.evict():
            pass

    def _forget(self, entry: Kept) -> None:
        self._entries.remove(entry)
        cells = self._memory.book.cells(entry.seq_id)
        self._num_keepers[cells] -= 1
        self.num_cells -= int((self._num_keepers[cells] == 0).sum())

    def _leave(self, entry: Kept) -> None:
        if self._on_evicted is not None:
            self._on_evicted(entry)
        self.drop(entry)

    def _covers(self, tokens: IntArray, adapter: str | None) -> bool:
        """Whether all of it is the beginning of something kept, which then counts as used."""
        entry, length = self.find(tokens, adapter)
        return entry is not None and length == len(tokens)

    def _drop_beginnings_of(self, tokens: IntArray, adapter: str | None) -> None:
        for entry in self.entries:
            if entry.adapter == adapter and num_common(entry.tokens, tokens) == len(entry.tokens):
                self.drop(entry)

    def _touch(self, entry: Kept) -> None:
        self._clock += 1
        entry.last_used = self._clock
