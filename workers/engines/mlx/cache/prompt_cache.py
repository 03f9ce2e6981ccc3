"""Kept KV state of sequences that have ended, found again by the longest common beginning."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from workers.engines.mlx.cache import kv
from workers.engines.mlx.cache.prefix_index import StateIndex
from workers.engines.mlx.cache.token_key import num_tokens
from workers.engines.mlx.library import PromptCache

# Tokens of a kept state that are given up rather than all before them copied.
_MAX_LOST = 32


@dataclass(frozen=True, slots=True)
class Match:
    """The first ``num_tokens`` tokens of a prompt are there; ``take`` makes a cache of them.

    ``take`` may raise ``StateLostError``.
    """

    num_tokens: int
    take: Callable[[], PromptCache]


class StateLostError(Exception):
    """What a match promised cannot be had any more; look again."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The state after all tokens of ``key``; ``can_trim``: after any beginning of them too."""

    key: bytes
    cache: PromptCache
    num_bytes: int
    can_trim: bool


OnEvicted = Callable[[Entry], None]


class PromptStore:
    """Entries within a budget of bytes, the least recently used leave first.

    ``on_evicted`` is told who had to leave for want of room.
    """

    def __init__(self, max_bytes: int, on_evicted: OnEvicted | None = None) -> None:
        self._max_bytes = max_bytes
        self._on_evicted = on_evicted
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._index = StateIndex()
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> list[Entry]:
        """All entries, the least recently used first."""
        return list(self._entries.values())

    def covers(self, key: bytes) -> bool:
        """Whether the state after ``key`` can be had; counts as a use."""
        found = self._index.covering(key)
        if found is not None:
            self._entries.move_to_end(found)
        return found is not None

    def put(self, key: bytes, cache: PromptCache) -> None:
        """Keep the state after the tokens of ``key``; the caller must not change it any more."""
        num_bytes = kv.num_bytes(cache)
        if num_bytes > self._max_bytes or self.covers(key):
            return
        # Else what the arrays are made from, a whole batch's cache, would stay with them.
        mx.async_eval(kv.arrays(cache))
        entry = Entry(key, cache, num_bytes, kv.can_trim(cache))
        if entry.can_trim:
            for shorter in self._index.beginnings(key):
                self._drop(shorter)
        self._add(entry)
        self._make_room()

    def find(self, key: bytes, max_tokens: int) -> Match | None:
        """The longest beginning of ``key`` that is here, at most ``max_tokens`` long."""
        found = self._index.longest(key, max_tokens)
        return None if found is None else self._match(self._entries[found[0]], found[1])

    def clear(self) -> None:
        self._entries.clear()
        self._index = StateIndex()
        self.num_bytes = 0

    def _match(self, entry: Entry, num: int) -> Match:
        def take() -> PromptCache:
            if entry.key not in self._entries:
                raise StateLostError
            if num_tokens(entry.key) - num <= _MAX_LOST and kv.grows(entry.cache):
                # The next turn of a chat: a copy would only hold its memory a second time.
                self._drop(entry.key)
                kv.cut(entry.cache, num)
                return entry.cache
            self._entries.move_to_end(entry.key)
            return kv.prefix(entry.cache, num)

        return Match(num, take)

    def _add(self, entry: Entry) -> None:
        self._entries[entry.key] = entry
        self._index.add(entry.key, can_trim=entry.can_trim)
        self.num_bytes += entry.num_bytes

    def _drop(self, key: bytes) -> Entry:
        entry = self._entries.pop(key)
        self._index.remove(key)
        self.num_bytes -= entry.num_bytes
        return entry

    def _make_room(self) -> None:
        while self.num_bytes > self._max_bytes:
            entry = self._drop(next(iter(self._entries)))
            if self._on_evicted is not None:
                self._on_evicted(entry)
