"""Kept KV state of sequences that have ended, found again by the longest common beginning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from workers.engines.mlx.cache import kv
from workers.engines.mlx.library import PromptCache
from workers.engines.shared.spill import StateLostError
from workers.engines.shared.state_store import StateStore, Stored
from workers.engines.shared.token_key import num_tokens

# Tokens of a kept state that are given up rather than all before them copied.
_MAX_LOST = 32
_IDENTITY = ""  # there is one model, with one adapter or none

Entry = Stored[PromptCache]


@dataclass(frozen=True, slots=True)
class Match:
    """The first ``num_tokens`` tokens of a prompt are there; ``take`` makes a cache of them.

    ``take`` may raise ``StateLostError``.
    """

    num_tokens: int
    take: Callable[[], PromptCache]


class PromptStore:
    """Caches within a budget of bytes, see ``StateStore``."""

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
        """Whether the state after ``key`` can be had; counts as a use."""
        return self._store.covers(_IDENTITY, key)

    def put(self, key: bytes, cache: PromptCache) -> None:
        """Keep the state after the tokens of ``key``; the caller must not change it any more."""
        num_bytes = kv.num_bytes(cache)
        if not self._store.fits(num_bytes) or self.covers(key):
            return
        # Else what the arrays are made from, a whole batch's cache, would stay with them.
        mx.async_eval(kv.arrays(cache))
        self._store.put(Stored(_IDENTITY, key, cache, num_bytes, kv.can_trim(cache)))

    def find(self, key: bytes, max_tokens: int) -> Match | None:
        """The longest beginning of ``key`` that is here, at most ``max_tokens`` long."""
        found = self._store.find(_IDENTITY, key, max_tokens)
        return None if found is None else self._match(*found)

    def clear(self) -> None:
        self._store.clear()

    def _match(self, entry: Entry, num: int) -> Match:
        def take() -> PromptCache:
            if entry not in self._store:
                raise StateLostError
            if num_tokens(entry.key) - num <= _MAX_LOST and kv.grows(entry.state):
                # The next turn of a chat: a copy would only hold its memory a second time.
                self._store.drop(entry)
                kv.cut(entry.state, num)
                return entry.state
            self._store.touch(entry)
            return kv.prefix(entry.state, num)

        return Match(num, take)
