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
    """The prompt cache: KV caches of at most ``max_bytes``, see ``StateStore``."""

    def __init__(self, max_bytes: int, on_evicted: Callable[[Entry], None] | None = None) -> None:
        self._store: StateStore[PromptCache] = StateStore(max_bytes, on_evicted)

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
        if not self._store.fits(num_bytes) or self.covers(key):
            return
        # Lazy arrays would keep their source in memory: the cache of the whole batch.
        mx.async_eval(kv.arrays(cache))
        self._store.put(Stored(_IDENTITY, key, cache, num_bytes, kv.can_trim(cache)))

    def find(self, key: bytes, max_tokens: int) -> Match | None:
        """The longest kept prefix of ``key``, at most ``max_tokens`` long."""
        found = self._store.find(_IDENTITY, key, max_tokens)
        return None if found is None else self._match(*found)

    def clear(self) -> None:
        self._store.clear()

    def _match(self, entry: Entry, num: int) -> Match:
        def take() -> PromptCache:
            if entry not in self._store:
                raise StateLostError
            if num_tokens(entry.key) - num <= _MAX_LOST and kv.can_always_trim(entry.state):
                # Usually the next turn of a chat: a copy would only take twice the memory.
                self._store.drop(entry)
                kv.cut(entry.state, num)
                return entry.state
            self._store.touch(entry)
            return kv.prefix(entry.state, num)

        return Match(num, take)
