"""Where a sequence gets its cells, and what of its text is there already."""

from __future__ import annotations

import math
from collections.abc import Collection

from workers.engines.llama_cpp.batch.decode_batch import IntArray
from workers.engines.llama_cpp.batch.running import Running
from workers.engines.llama_cpp.cache.host_cache import HostCache
from workers.engines.llama_cpp.cache.memory import KvMemory
from workers.engines.llama_cpp.cache.per_slot import PerSlotCells
from workers.engines.llama_cpp.cache.prefixes import PrefixCache, num_common, rows_foreseen
from workers.engines.shared.leaders import choose_leader

_RESERVED = 64  # cells kept free per sequence at an admission, so that it is not preempted at once
_MIN_SHARED = 32  # tokens worth keeping an entry in the way
_MIN_RESTORED = 64  # tokens that a copy from the host cache must save


class Placement:
    """Opens sequences in ``memory`` with what is kept in ``prefixes`` and on the ``host_cache``."""

    def __init__(
        self, memory: KvMemory, prefixes: PrefixCache, host_cache: HostCache | None
    ) -> None:
        self._memory = memory
        self._prefixes = prefixes
        self._host_cache = host_cache

    def make_room(self, run: Running, running: Collection[Running]) -> bool:
        """Free cells that all share; False when those that run have to end first."""
        if self._memory.is_per_slot:
            return True
        entry, num_found = self._prefixes.find(_reusable(run), run.adapter)
        needed = run.num_uncomputed - num_found
        reserved = sum(min(_RESERVED, other.num_remaining) for other in (*running, run))
        while self._memory.num_free < needed + reserved:
            if not self._prefixes.evict(spared=entry):
                break
        if self._memory.num_free < needed + reserved and running:
            return False
        if self._host_cache is not None:
            # The threads of a lone one divide the cells up to the last one between them: with idle
            # cells before its own, some have nothing to do.
            shared = entry if num_found >= _MIN_SHARED else None
            num_rows = rows_foreseen(needed, run.expected_output) if running else math.inf
            self._prefixes.clear_idle(num_rows, shared)
        return True

    def open_seq(self, run: Running, running: Collection[Running]) -> None:
        """A sequence that holds as much of the text as is in the cache anywhere."""
        wanted = _reusable(run)
        _, num_kept = self._prefixes.find(wanted, run.adapter)
        other, num_beside = self._nearest_running(run, wanted, running)
        restored = self._restore(run, wanted, max(num_kept, num_beside) + _MIN_RESTORED)
        # Once more: a restore that fails has made room for itself first.
        entry, num_kept = self._prefixes.find(wanted, run.adapter)
        if restored is not None:
            run.seq_id = restored
        elif other is not None and num_beside > num_kept:
            self._clear_slot()
            run.seq_id = self._memory.branch(other.seq_id, num_beside)
        elif entry is not None and self._memory.is_worth_branching(entry.seq_id, num_kept):
            # Whole it will be kept again with the sequence, which covers it.
            if self._memory.is_per_slot or num_kept == len(entry.tokens):
                run.seq_id = self._prefixes.take(entry, num_kept)
            else:
                run.seq_id = self._memory.branch(entry.seq_id, num_kept)
        else:
            self._clear_slot()
            run.seq_id = self._memory.open_seq()
        run.num_in_cache = self._memory.book.length(run.seq_id)
        if run.num_generated == 0:
            run.num_cached = run.num_in_cache

    def leader_of(self, run: Running, running: Collection[Running]) -> Running | None:
        """Who is reading more of this sequence's beginning than the cache has."""
        if not self._prefixes.can_trim:
            return None
        wanted = _reusable(run)
        others = [o for o in running if o.adapter == run.adapter and o.leader is None]
        commons = [(num_common(other.known, wanted), other) for other in others]
        being_read = [(num, other) for num, other in commons if other.num_in_cache < num]
        found = choose_leader(being_read, run.num_in_cache)
        return None if found is None else found[1]

    def has_followed(self, run: Running, leader: Running) -> bool:
        """Whether the leader has read what the two share."""
        return leader.num_in_cache >= num_common(leader.known, _reusable(run))

    def _clear_slot(self) -> None:
        """A slot's cells become free for the next sequence."""
        if isinstance(self._memory, PerSlotCells):
            in_the_way = self._memory.in_the_way
            if in_the_way is not None:
                self._prefixes.evict_seq(in_the_way)

    def _restore(self, run: Running, wanted: IntArray, at_least: int) -> int | None:
        """A sequence with a state from the host cache, if it has so many of the wanted tokens."""
        if self._host_cache is None:
            return None
        cached, length = self._host_cache.find(wanted, run.adapter)
        if cached is None or length < max(at_least, cached.num_tokens // 4):
            return None
        while self._memory.num_free < cached.num_tokens and self._prefixes.evict():
            pass
        if self._memory.num_free < cached.num_tokens:
            return None
        self._clear_slot()
        seq_id = self._host_cache.restore(cached)
        if seq_id is not None:
            self._memory.truncate(seq_id, length)
        return seq_id

    def _nearest_running(
        self, run: Running, wanted: IntArray, running: Collection[Running]
    ) -> tuple[Running | None, int]:
        best, best_length = None, 0
        if not self._prefixes.can_trim:
            return best, best_length
        for other in running:
            if other is run or other.adapter != run.adapter:
                continue
            length = num_common(other.tokens[: other.num_in_cache], wanted)
            if length > best_length and self._memory.is_worth_branching(other.seq_id, length):
                best, best_length = other, length
        return best, best_length


def _reusable(run: Running) -> IntArray:
    """What may come from the cache: not the last token, whose logits are wanted."""
    return run.tokens[: 0 if run.is_scoring else run.num_tokens - 1]
