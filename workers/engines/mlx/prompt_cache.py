"""Kept KV state of sequences that have ended, found again by the longest common beginning."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import mlx.core as mx

from workers.engines.mlx import kv
from workers.engines.mlx.library import PromptCache
from workers.engines.mlx.token_key import first, num_common, num_tokens


@dataclass(frozen=True, slots=True)
class Match:
    """The first ``num_tokens`` tokens of a prompt are there; ``take`` makes a cache of them."""

    num_tokens: int
    take: Callable[[], PromptCache]


class PrefixIndex:
    """Keys in order, so that those with the longest common beginning are neighbours."""

    def __init__(self) -> None:
        self._keys: list[bytes] = []

    def add(self, key: bytes) -> None:
        bisect.insort(self._keys, key)

    def remove(self, key: bytes) -> None:
        del self._keys[bisect.bisect_left(self._keys, key)]

    def nearest(self, key: bytes) -> bytes | None:
        """The key that has most tokens in common with ``key`` at its beginning."""
        place = bisect.bisect_left(self._keys, key)
        neighbours = self._keys[max(0, place - 1) : place + 1]
        return max(neighbours, key=lambda other: num_common(other, key), default=None)

    def beginnings(self, key: bytes) -> Iterator[bytes]:
        """All keys that ``key`` begins with, itself included, longest first."""
        end = len(self._keys)
        while True:
            place = bisect.bisect_right(self._keys, key, hi=end) - 1
            if place < 0:
                return
            found = self._keys[place]
            num = num_common(found, key)
            if num == num_tokens(found):
                yield found
                end = place
            key = first(key, num)

    def extensions(self, key: bytes) -> Iterator[bytes]:
        """All keys that begin with ``key``, itself included."""
        place = bisect.bisect_left(self._keys, key)
        while place < len(self._keys) and self._keys[place].startswith(key):
            yield self._keys[place]
            place += 1


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
        self._index = PrefixIndex()
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> list[Entry]:
        """All entries, the least recently used first."""
        return list(self._entries.values())

    def covers(self, key: bytes) -> bool:
        """Whether the state after ``key`` can be had; counts as a use."""
        entry = self._entry_covering(key)
        if entry is not None:
            self._entries.move_to_end(entry.key)
        return entry is not None

    def put(self, key: bytes, cache: PromptCache) -> None:
        """Keep the state after the tokens of ``key``; the caller must not change it any more."""
        num_bytes = kv.num_bytes(cache)
        if num_bytes > self._max_bytes or self.covers(key):
            return
        # Else what the arrays are made from, a whole batch's cache, would stay with them.
        mx.async_eval(kv.arrays(cache))
        entry = Entry(key, cache, num_bytes, kv.can_trim(cache))
        if entry.can_trim:
            for shorter in list(self._index.beginnings(key)):
                self._drop(shorter)
        self._add(entry)
        self._make_room()

    def find(self, key: bytes, max_tokens: int) -> Match | None:
        """The longest beginning of ``key`` that is here, at most ``max_tokens`` long."""
        found = [self._by_trimming(key, max_tokens), self._whole(key, max_tokens)]
        return max(filter(None, found), key=lambda match: match.num_tokens, default=None)

    def clear(self) -> None:
        self._entries.clear()
        self._index = PrefixIndex()
        self.num_bytes = 0

    def _by_trimming(self, key: bytes, max_tokens: int) -> Match | None:
        nearest = self._index.nearest(first(key, max_tokens))
        if nearest is None:
            return None
        num = min(num_common(nearest, key), max_tokens)
        entry = self._entry_covering(first(key, num))
        return None if entry is None or num == 0 else self._match(entry, num)

    def _entry_covering(self, key: bytes) -> Entry | None:
        for other in self._index.extensions(key):
            entry = self._entries[other]
            if entry.can_trim or other == key:
                return entry
        return None

    def _whole(self, key: bytes, max_tokens: int) -> Match | None:
        longest = next(self._index.beginnings(first(key, max_tokens)), None)
        if longest is None:
            return None
        return self._match(self._entries[longest], num_tokens(longest))

    def _match(self, entry: Entry, num: int) -> Match:
        def take() -> PromptCache:
            if entry.key in self._entries:
                self._entries.move_to_end(entry.key)
            return kv.prefix(entry.cache, num)

        return Match(num, take)

    def _add(self, entry: Entry) -> None:
        self._entries[entry.key] = entry
        self._index.add(entry.key)
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
