"""Kept KV state of ended sequences, found by the longest common prefix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from workers.engines.mlx.cache import kv
from workers.engines.mlx.library import PromptCache
from workers.engines.shared.spill import StateLostError
from workers.engines.shared.state_store import StateStore, Stored
from workers.engines.shared.token_key import num_tokens

# A kept state with at most this many tokens behind the match is cut in place and not copied.
_MAX_LOST = 32
_IDENTITY = ""  # all states belong to the one model with its one adapter, if any

Entry = Stored[PromptCache]


@dataclass(frozen=True, slots=True)
class Match:
    """A state of the first ``num_tokens`` of a prompt. ``take`` returns it as a cache, or raises
    ``StateLostError`` if it is gone."""

    num_tokens: int
    take: Callable[[], PromptCache]


class PromptStore:
    """The prompt cache: KV caches of ``max_bytes``, see ``StateStore``."""

    def __init__(
        self,
        max_bytes: int,
        on_evicted: Callable[[Entry], None] | None = None,
        largest_bytes: int | None = None,
    ) -> None:
        self._store: StateStore[PromptCache] = StateStore(
            max_bytes, on_evicted, largest_bytes=largest_bytes
        )
        self._room: Callable[[], int] | None = None

    def limit_by(self, room: Callable[[], int] | None) -> None:
        """``room()``: bytes that states may take beside the sequences that run then."""
        self._room = room

    def make_room(self, num_bytes: int = 0) -> None:
        """Evict what exceeds the room, less ``num_bytes``; without a limit nothing."""
        if self._room is not None:
            self._store.limit(self._room() - num_bytes)

    def __len__(self) -> int:
        return len(self._store)

    @property
    def num_bytes(self) -> int:
        return self._store.num_bytes

    @property
    def entries(self) -> list[Entry]:
        """All entries, the least recently used first."""
        return self._store.entries

    def covers(self, key: bytes) -> bool:
        """Whether an entry contains the state of ``key``; it then counts as used."""
        return self._store.covers(_IDENTITY, key)

    def put(self, key: bytes, cache: PromptCache) -> None:
        """Keep ``cache``, the state of ``key``; the caller must not change it any more."""
        num_bytes = kv.num_bytes(cache)
        self.make_room()
        if not self._store.fits(num_bytes) or self.covers(key):
            return
        # Lazy arrays would keep their source in memory: the cache of the whole batch.
        mx.async_eval(kv.arrays(cache))
        self._store.put(Stored(_IDENTITY, key, cache, num_bytes, kv.can_trim(cache)))

    def find(self, key: bytes, max_tokens: int) -> Match | None:
        """The longest kept prefix of ``key``, at most ``max_tokens`` long."""
        found = self._store.find(_IDENTITY, key, max_tokens)
        return None if found is None else self._match(*found)

    def num_known(self, key: bytes) -> int:
        """How many tokens of ``key`` any kept text begins with, even if it cannot be cut there."""
        return self._store.num_known(_IDENTITY, key)

    def prefer(self, key: bytes, max_tokens: int) -> int:
        """Evict the kept prefix of ``key`` last; its bytes, if its memory can be taken over."""
        found = self._store.find(_IDENTITY, key, max_tokens)
        if found is None:
            return 0
        self._store.touch(found[0])
        return found[0].num_bytes if _can_take_over(*found) else 0

    def clear(self) -> None:
        self._store.clear()

    def _match(self, entry: Entry, num: int) -> Match:
        def take() -> PromptCache:
            if entry not in self._store:
                raise StateLostError
            if _can_take_over(entry, num):
                # Usually the next turn of a chat: a copy would only take twice the memory.
                self._store.drop(entry)
                kv.cut(entry.state, num)
                return entry.state
            self._store.touch(entry)
            return kv.prefix(entry.state, num)

        return Match(num, take)


def _can_take_over(entry: Entry, num: int) -> bool:
    """Whether the state is cut in place for a prompt that shares ``num`` tokens with it."""
    return num_tokens(entry.key) - num <= _MAX_LOST and kv.can_always_trim(entry.state)
