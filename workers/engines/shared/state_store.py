"""KV states of ended sequences, in memory, found by the longest common prefix."""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from workers.engines.shared.prefix_index import StateIndex

State = TypeVar("State")


@dataclass(frozen=True, slots=True)
class Stored(Generic[State]):
    """The state after all tokens of ``key``; ``can_trim``: it can be cut to any prefix.

    States of different ``identity`` (digest of model, adapter, …) share nothing.
    """

    identity: str
    key: bytes
    state: State
    num_bytes: int
    can_trim: bool


class StateStore(Generic[State]):
    """States in about ``max_bytes``; the least recently used are evicted first.

    The newest is kept even if it is larger, up to ``largest_bytes`` (``None``: whatever its size):
    otherwise each turn of a long chat would be read from its beginning. ``on_evicted`` is called
    with each evicted entry.
    """

    def __init__(
        self,
        max_bytes: int,
        on_evicted: Callable[[Stored[State]], None] | None = None,
        *,
        largest_bytes: int | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._largest_bytes = math.inf if largest_bytes is None else largest_bytes
        self._limit_bytes: float = math.inf
        self._on_evicted = on_evicted
        self._entries: OrderedDict[tuple[str, bytes], Stored[State]] = OrderedDict()
        self._indexes: dict[str, StateIndex] = defaultdict(StateIndex)
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, entry: Stored[State]) -> bool:
        return self._entries.get((entry.identity, entry.key)) is entry

    @property
    def entries(self) -> list[Stored[State]]:
        """All entries, the least recently used first."""
        return list(self._entries.values())

    def fits(self, num_bytes: int) -> bool:
        """Whether a state of ``num_bytes`` can be kept at all."""
        largest = min(self._largest_bytes, self._limit_bytes)
        return self._max_bytes > 0 and num_bytes <= largest

    def covers(self, identity: str, key: bytes) -> bool:
        """Whether an entry contains the state of ``key``; it then counts as used."""
        found = self._indexes[identity].covering(key)
        if found is not None:
            self._entries.move_to_end((identity, found))
        return found is not None

    def put(self, entry: Stored[State]) -> None:
        """Add a state that no entry covers; entries that it covers are dropped."""
        if entry.can_trim:
            for shorter in self._indexes[entry.identity].prefixes(entry.key):
                self.drop(self._entries[entry.identity, shorter])
        self._entries[entry.identity, entry.key] = entry
        self._indexes[entry.identity].add(entry.key, can_trim=entry.can_trim)
        self.num_bytes += entry.num_bytes
        while len(self) > 1 and self.num_bytes > min(self._max_bytes, self._limit_bytes):
            self._evict()

    def make_room(self, num_bytes: int) -> bool:
        """Evict what a state of ``num_bytes`` will need; False if it cannot be kept at all."""
        if not self.fits(num_bytes):
            return False
        room = min(self._max_bytes, self._limit_bytes) - num_bytes
        while self._entries and self.num_bytes > room:
            self._evict()
        return True

    def limit(self, num_bytes: int) -> None:
        """Take at most ``num_bytes`` from now on, the newest state included."""
        self._limit_bytes = num_bytes
        while self._entries and self.num_bytes > num_bytes:
            self._evict()

    def _evict(self) -> None:
        oldest = next(iter(self._entries.values()))
        self.drop(oldest)
        if self._on_evicted is not None:
            self._on_evicted(oldest)

    def find(self, identity: str, key: bytes, max_tokens: int) -> tuple[Stored[State], int] | None:
        """The entry with the longest prefix of ``key``, and its length, at most ``max_tokens``."""
        found = self._indexes[identity].longest(key, max_tokens)
        return None if found is None else (self._entries[identity, found[0]], found[1])

    def num_known(self, identity: str, key: bytes) -> int:
        """Length of the longest common prefix of ``key`` and the key of any entry."""
        return self._indexes[identity].num_known(key)

    def touch(self, entry: Stored[State]) -> None:
        """Mark an entry as used."""
        self._entries.move_to_end((entry.identity, entry.key))

    def drop(self, entry: Stored[State]) -> None:
        """Remove an entry."""
        del self._entries[entry.identity, entry.key]
        self._indexes[entry.identity].remove(entry.key)
        self.num_bytes -= entry.num_bytes

    def clear(self) -> None:
        self._entries.clear()
        self._indexes.clear()
        self.num_bytes = 0
