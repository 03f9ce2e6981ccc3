"""Kept KV state of ended sequences, found by the longest common prefix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from workers.engines.llama_cpp.batch.decode_batch import IntArray
from workers.engines.llama_cpp.cache.memory import KvMemory

MAX_KEPT = 64  # a look-up compares with each of them
MIN_KEPT_TOKENS = 16
# Decoded rows that together spend about as much time on an idle cell as copying it out takes:
# 1.4 µs per row, 17 to 250 µs for the copy (0.5 B model on a CPU; most when memory is new).
ROWS_PER_COPY = 128
_PREFILL_PER_ROW = 6  # prompt tokens, computed in tiles, that cost as much as one decoded row


def num_common(one: IntArray, other: IntArray) -> int:
    """Length of the common prefix."""
    length = min(len(one), len(other))
    differs = one[:length] != other[:length]
    place = int(differs.argmax()) if length else 0
    return place if length and differs[place] else length


@dataclass(eq=False, slots=True)
class Kept:
    """The kept KV state of ``tokens``, computed with ``adapter`` (``None``: without)."""

    seq_id: int
    tokens: IntArray
    adapter: str | None
    last_used: int = 0
    num_passing_rows: float = 0
    """Decoded rows, past and expected, whose attention passes over its cells."""


def expected_rows(num_prefill: int, num_generated: int) -> float:
    """Decoded rows that cost as much as a sequence with this many tokens to prefill and generate.

    Each of them passes over the idle cells.
    """
    return num_prefill / _PREFILL_PER_ROW + num_generated


OnEvicted = Callable[[Kept], None]


class PrefixCache:
    """Kept sequences in at most ``max_cells`` KV cells; the least recently used are evicted first.

    ``on_evicted`` is called with an entry before its state is freed; also, instead of keeping it,
    if the memory cannot keep sequences that are not decoded.
    """

    def __init__(
        self,
        memory: KvMemory,
        max_cells: int,
        *,
        on_evicted: OnEvicted | None = None,
    ) -> None:
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
        """All kept sequences."""
        return list(self._entries)

    def find(self, tokens: IntArray, adapter: str | None) -> tuple[Kept | None, int]:
        """The entry with the longest usable prefix of ``tokens``, and the prefix's length."""
        best, best_length = None, 0
        for entry in self._entries:
            if entry.adapter != adapter:
                continue
            length = num_common(entry.tokens, tokens)
            if length > best_length and self._memory.can_cut(entry.seq_id, length):
                best, best_length = entry, length
        if best is not None:
            self._touch(best)
        return best, best_length

    def keep(self, seq_id: int, tokens: IntArray, adapter: str | None) -> None:
        """Keep a sequence that holds ``tokens``, or release it; the caller gives up the id."""
        if self._max_cells == 0 or len(tokens) < MIN_KEPT_TOKENS or self._covers(tokens, adapter):
            self._memory.release(seq_id)
            return
        if not self._memory.traits.can_idle:
            self._hand_over(Kept(seq_id, tokens, adapter))
            self._memory.release(seq_id)
            return
        if self._memory.traits.can_cut_anywhere:
            self._drop_prefixes_of(tokens, adapter)
        if not self._memory.num_free_kept_ids and not self.evict():
            self._memory.release(seq_id)  # slots use all ids
            return
        entry = Kept(self._memory.keep(seq_id), tokens.copy(), adapter)
        self._touch(entry)
        self._entries.append(entry)
        cells = self._memory.cells.of(entry.seq_id)
        self.num_cells += int((self._num_keepers[cells] == 0).sum())
        self._num_keepers[cells] += 1
        while self.num_cells > self._max_cells or len(self._entries) > MAX_KEPT:
            self.evict()

    def drop(self, entry: Kept) -> None:
        """Remove an entry and free its cells."""
        self._forget(entry)
        self._memory.release(entry.seq_id)

    def evict(self, spared: Kept | None = None) -> bool:
        """Evict the least recently used entry except ``spared``; False if there is none."""
        candidates = [entry for entry in self._entries if entry is not spared]
        if not candidates:
            return False
        self._evict(min(candidates, key=lambda entry: entry.last_used))
        return True

    def clear_idle(self, num_rows: float, spared: Kept | None) -> None:
        """Evict entries that slow decoding, before a sequence of about ``num_rows`` rows starts.

        An entry with at least half of its cells unshared is evicted once it has cost as much time
        as its copy, which halts all running sequences. This is done at a start because llama.cpp
        visits all cells up to the last one in use: cells freed later save little.
        """
        for entry in self.entries:
            num_unshared = self._memory.cells.num_unshared(entry.seq_id)
            if entry is spared or 2 * num_unshared < len(entry.tokens):
                continue
            entry.num_passing_rows += num_rows
            if entry.num_passing_rows >= ROWS_PER_COPY:
                self._evict(entry)

    def evict_seq(self, seq_id: int) -> None:
        """Evict the entry with this id."""
        self._evict(next(entry for entry in self._entries if entry.seq_id == seq_id))

    def take(self, entry: Kept, count: int) -> int:
        """Turn an entry into a sequence with its first ``count`` tokens; returns the sequence's id.

        If that cuts off many tokens, ``on_evicted`` is called before.
        """
        if len(entry.tokens) - count >= MIN_KEPT_TOKENS:
            self._hand_over(entry)
        self._forget(entry)
        seq_id = self._memory.resume(entry.seq_id)
        self._memory.truncate(seq_id, count)
        return seq_id

    def evict_all(self) -> None:
        """Evict all entries."""
        while self.evict():
            pass

    def _forget(self, entry: Kept) -> None:
        self._entries.remove(entry)
        cells = self._memory.cells.of(entry.seq_id)
        self._num_keepers[cells] -= 1
        self.num_cells -= int((self._num_keepers[cells] == 0).sum())

    def _evict(self, entry: Kept) -> None:
        self._hand_over(entry)
        self.drop(entry)

    def _hand_over(self, entry: Kept) -> None:
        if self._on_evicted is not None:
            self._on_evicted(entry)

    def _covers(self, tokens: IntArray, adapter: str | None) -> bool:
        """Whether an entry contains the state of ``tokens``; it then counts as used."""
        entry, length = self.find(tokens, adapter)
        if entry is None or length < len(tokens):
            return False
        return self._memory.traits.can_cut_anywhere or len(entry.tokens) == length

    def _drop_prefixes_of(self, tokens: IntArray, adapter: str | None) -> None:
        for entry in self.entries:
            if entry.adapter == adapter and num_common(entry.tokens, tokens) == len(entry.tokens):
                self.drop(entry)

    def _touch(self, entry: Kept) -> None:
        self._clock += 1
        entry.last_used = self._clock
