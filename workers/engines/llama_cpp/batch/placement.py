"""Gives a starting sequence its KV cells, with as much of its text as the caches hold."""

from __future__ import annotations

import math
from collections.abc import Collection

from workers.engines.llama_cpp.batch.decode_batch import IntArray
from workers.engines.llama_cpp.batch.running import Running
from workers.engines.llama_cpp.cache.host_cache import HostCache
from workers.engines.llama_cpp.cache.memory import KvMemory
from workers.engines.llama_cpp.cache.per_slot import PerSlotCells
from workers.engines.llama_cpp.cache.prefixes import Kept, PrefixCache, expected_rows, num_common
from workers.engines.shared.checkpoint import MIN_SAVED, checkpoint_of
from workers.engines.shared.leaders import choose_leader

_RESERVED = 64  # cells kept free per sequence at a start, so that none is preempted at once
_MIN_SHARED = 32  # tokens; sharing fewer is no reason to leave an entry in the cells


class Placement:
    """Opens sequences in ``memory`` with state from ``prefixes`` and ``host_cache``.

    ``slows_idle``: idle cells slow every step, as they do on a CPU; a GPU skips them.
    """

    def __init__(
        self,
        memory: KvMemory,
        prefixes: PrefixCache,
        host_cache: HostCache | None,
        *,
        slows_idle: bool,
    ) -> None:
        self._slows_idle = slows_idle
        self._memory = memory
        self._prefixes = prefixes
        self._host_cache = host_cache

    def make_room(self, run: Running, running: Collection[Running]) -> bool:
        """Free enough shared cells to start ``run``; False if running sequences must end first."""
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
        if self._host_cache is not None and self._slows_idle:
            # The threads split all cells up to the last one used. If only one sequence runs, idle
            # cells before its own leave some threads without work.
            shared = entry if num_found >= _MIN_SHARED else None
            num_rows = expected_rows(needed, run.expected_output) if running else math.inf
            self._prefixes.clear_idle(num_rows, shared)
        return True

    def open_seq(self, run: Running, running: Collection[Running]) -> None:
        """Open a sequence for ``run``, with the longest prefix that any cache or sequence holds."""
        wanted = _reusable(run)
        _, num_kept = self._prefixes.find(wanted, run.adapter)
        other, num_running = self._nearest_running(run, wanted, running)
        restored = self._restore(run, wanted, max(num_kept, num_running) + MIN_SAVED)
        # Search again: even a failed restore may have evicted entries.
        entry, num_kept = self._prefixes.find(wanted, run.adapter)
        if restored is not None:
            run.seq_id = restored
        elif other is not None and num_running > num_kept:
            self._free_slot()
            run.seq_id = self._memory.branch(other.seq_id, num_running)
        elif entry is not None and self._memory.is_worth_branching(entry.seq_id, num_kept):
            # A whole entry is taken: it will be kept again as a part of this sequence.
            if self._memory.is_per_slot or num_kept == len(entry.tokens):
                run.seq_id = self._prefixes.take(entry, num_kept)
            else:
                run.seq_id = self._memory.branch(entry.seq_id, num_kept)
        else:
            self._free_slot()
            run.seq_id = self._memory.open_seq()
        run.num_in_cache = self._memory.cells.length(run.seq_id)
        if run.num_generated == 0:
            run.num_cached = run.num_in_cache
        run.pauses = self._pauses(run, wanted)

    def store(self, run: Running) -> None:
        """Copy the state of a sequence to the host cache."""
        assert self._host_cache is not None, "only for it a sequence pauses"
        tokens = run.tokens[: run.num_in_cache].copy()
        self._host_cache.put(Kept(run.seq_id, tokens, run.adapter))

    def leader_of(self, run: Running, running: Collection[Running]) -> Running | None:
        """The sequence that is prefilling a longer prefix of ``run`` than the cache has, if any."""
        if not self._memory.traits.can_cut_anywhere:
            return None
        wanted = _reusable(run)
        others = [o for o in running if o.adapter == run.adapter and o.leader is None]
        commons = [(num_common(other.tokens_so_far, wanted), other) for other in others]
        in_prefill = [(num, other) for num, other in commons if other.num_in_cache < num]
        found = choose_leader(in_prefill, run.num_in_cache)
        return None if found is None else found[1]

    def is_leader_done(self, run: Running, leader: Running) -> bool:
        """Whether the leader has prefilled the prefix that the two share."""
        return leader.num_in_cache >= num_common(leader.tokens_so_far, _reusable(run))

    def _pauses(self, run: Running, wanted: IntArray) -> list[int]:
        """Where to copy states of the prompt that cannot be had from its end: recurrent ones.

        Before the answer, for the same prompt or its next turn; and where an earlier prompt began
        to differ, for others that begin like both.
        """
        if self._memory.traits.can_cut or self._host_cache is None:
            return []
        known = self._host_cache.num_known(wanted, run.adapter)
        ends = {checkpoint_of(run.sequence), known}
        return sorted(end for end in ends if end >= run.num_in_cache + MIN_SAVED)

    def _free_slot(self) -> None:
        """With cells per slot, evict a kept sequence if no slot is free."""
        if isinstance(self._memory, PerSlotCells):
            seq_id = self._memory.seq_to_evict
            if seq_id is not None:
                self._prefixes.evict_seq(seq_id)

    def _restore(self, run: Running, wanted: IntArray, at_least: int) -> int | None:
        """Open a sequence from the host cache if that has ``at_least`` tokens of ``wanted``."""
        if self._host_cache is None:
            return None
        cached, length = self._host_cache.find(wanted, run.adapter)
        if cached is None or length < max(at_least, cached.num_tokens // 4):
            return None
        while self._memory.num_free < cached.num_tokens and self._prefixes.evict():
            pass
        if self._memory.num_free < cached.num_tokens:
            return None
        self._free_slot()
        seq_id = self._host_cache.restore(cached)
        if seq_id is not None:
            self._memory.truncate(seq_id, length)
        return seq_id

    def _nearest_running(
        self, run: Running, wanted: IntArray, running: Collection[Running]
    ) -> tuple[Running | None, int]:
        best, best_length = None, 0
        for other in running:
            if other is run or other.adapter != run.adapter:
                continue
            length = num_common(other.tokens[: other.num_in_cache], wanted)
            is_better = length > best_length and self._memory.can_branch(other.seq_id, length)
            if is_better and self._memory.is_worth_branching(other.seq_id, length):
                best, best_length = other, length
        return best, best_length


def _reusable(run: Running) -> IntArray:
    """The tokens that may come from a cache: not the last one, because its logits are needed."""
    return run.tokens[: 0 if run.is_scoring else run.num_tokens - 1]
