"""States of prefixes that were evicted from the KV cells: in memory, and on disk if configured.

A kept prefix in shared cells slows every step (with 11,000 idle cells, 16 rows of a 0.5 B model
decoded at half the speed on a CPU), so only a few stay there. To copy one out and back takes
milliseconds; prefill of its text takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from workers.engines.llama_cpp.batch.decode_batch import IntArray
from workers.engines.llama_cpp.cache.memory import KvMemory, StateBytes
from workers.engines.llama_cpp.cache.prefixes import Kept
from workers.engines.shared.spill import Spill, StateLostError
from workers.engines.shared.spill_file import PackedState, SpillHeader
from workers.engines.shared.state_store import StateStore, Stored
from workers.engines.shared.token_key import num_tokens, to_key

MIN_TOKENS = 64  # prefill of fewer tokens is faster than a copy


@dataclass(frozen=True, slots=True)
class CachedState:
    """A state of ``num_tokens``; ``read`` returns its bytes or raises ``StateLostError``."""

    num_tokens: int
    read: Callable[[], StateBytes]


class HostCache:
    """About ``max_bytes`` of states in memory; evicted ones go to ``spill``, if there is one.

    See ``StateStore`` for ``largest_bytes``. ``identity_of(adapter)``: identity
    (``shared.identity``) of states computed with that adapter.
    """

    def __init__(
        self,
        memory: KvMemory,
        max_bytes: int,
        identity_of: Callable[[str | None], str],
        *,
        spill: Spill | None = None,
        largest_bytes: int | None = None,
    ) -> None:
        self._memory = memory
        self._identity_of = identity_of
        self._spill = spill
        self._store: StateStore[StateBytes] = StateStore(
            max_bytes, self._write, largest_bytes=largest_bytes
        )

    @property
    def num_bytes(self) -> int:
        """Bytes in memory."""
        return self._store.num_bytes

    def limit(self, num_bytes: int) -> None:
        """Take at most ``num_bytes`` from now on."""
        self._store.limit(num_bytes)

    def put(self, kept: Kept) -> None:
        """Copy the state of a kept sequence; shorter states that it covers are dropped."""
        identity, key = self._identity_of(kept.adapter), to_key(kept.tokens)
        if len(kept.tokens) < MIN_TOKENS or self._store.covers(identity, key):
            return
        state = self._memory.copy_out(kept.seq_id, self._store.make_room)
        if state is not None:
            can_trim = self._memory.traits.can_cut_anywhere
            self._store.put(Stored(identity, key, state, len(state), can_trim))

    def find(self, tokens: IntArray, adapter: str | None) -> tuple[CachedState | None, int]:
        """The state with the longest usable prefix of ``tokens``, and the prefix's length."""
        identity, key = self._identity_of(adapter), to_key(tokens)
        found = self._store.find(identity, key, len(tokens))
        num = 0 if found is None else found[1]
        spilled = None if self._spill is None else self._spill.find(identity, key, len(tokens), num)
        if spilled is not None:
            header, length = spilled
            return CachedState(header.num_tokens, lambda: self._read(header)), length
        if found is None:
            return None, 0
        entry = found[0]
        self._store.touch(entry)
        return CachedState(num_tokens(entry.key), lambda: entry.state), num

    def num_known(self, tokens: IntArray, adapter: str | None) -> int:
        """How many of ``tokens`` any text in memory begins with, even if it cannot be cut there."""
        return self._store.num_known(self._identity_of(adapter), to_key(tokens))

    def restore(self, cached: CachedState) -> int | None:
        """Copy a state into a new sequence and return its id; ``None`` if that failed."""
        try:
            return self._memory.copy_in(cached.read(), cached.num_tokens)
        except StateLostError:
            return None

    def close(self) -> None:
        """Spill the states in memory, the most recently used first."""
        if self._spill is not None:
            self._spill.close(map(_packing, reversed(self._store.entries)))

    def _read(self, header: SpillHeader) -> StateBytes:
        assert self._spill is not None
        (state,) = self._spill.read(header).parts
        return state

    def _write(self, entry: Stored[StateBytes]) -> None:
        if self._spill is not None:
            self._spill.put(*_packing(entry))


def _packing(entry: Stored[StateBytes]) -> tuple[SpillHeader, Callable[[], PackedState]]:
    header = SpillHeader(entry.identity, entry.key, entry.can_trim)
    return header, lambda: PackedState(None, [entry.state])
