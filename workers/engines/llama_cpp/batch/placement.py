"""Where a sequence gets its cells, and what of its text is there already."""

from __future__ import annotations

import math
from collections.abc import Collection

from workers.engines.llama_cpp.batch.decode_batch import IntArray
from workers.engines.llama_cpp.batch.running import Running
from workers.engines.llama_cpp.cache.host_cache import Shelf
from workers.engines.llama_cpp.cache.memory import KvMemory
from workers.engines.llama_cpp.cache.prefixes import PrefixCache, num_common, rows_foreseen
from workers.engines.llama_cpp.slot_ranges import SlotRanges

_RESERVED = 64  # cells kept free per sequence at an admission, so that it is not preempted at once
_MIN_SHARED = 32  # tokens worth waiting for a leader, or keeping an entry in the way
_MIN_RESTORED = 64  # tokens that a copy from the shelf must save
_LONG_BEGINNING = 128  # tokens; with 8 sequences as much in common as of one's own is the limit
_STEPS_APART = 4


class Placement:
    """Opens sequences in ``memory`` with what is kept in ``prefixes`` and on the ``shelf``."""

    def __init__(self, memory: KvMemory, prefixes: PrefixCache, shelf: Shelf | None) -> None:
        self._memory = memory
        self._prefixes = prefixes
        self._shelf = shelf
        self._num_steps_apart = 0

    def needs_pool(self, run: Running, running: Collection[Running]) -> bool:
        """Whether ranges are too short for it to start, or it had better share cells."""
        if not self._memory.has_ranges:
            return False
        if run.num_tokens + min(_RESERVED, run.num_remaining) > self._memory.longest:
            return True
        wanted = _reusable(run)
        shared = max(
            (num_common(o.known, wanted) for o in running if o.adapter == run.adapter), default=0
        )
        own = run.num_tokens - shared + run.expected_output // 2
        if shared < max(_LONG_BEGINNING, own):
            return False
        return shared + _MIN_RESTORED > self._num_ready(run, wanted)

    def make_room(self, run: Running, running: Collection[Running]) -> bool:
        """Free cells of a pool; False when those that run have to end first.

        A range needs nothing: whose it is next is seen when the sequence is opened.
        """
        if self._memory.has_ranges:
            return True
        entry, num_found = self._prefixes.find(_reusable(run), run.adapter)
        needed = run.num_uncomputed - num_found
        reserved = sum(min(_RESERVED, other.num_remaining) for other in (*running, run))
        while self._memory.num_free < needed + reserved:
            if not self._prefixes.evict(spared=entry):
                break
        if self._memory.num_free < needed + reserved and running:
            return False
        if self._shelf is not None:
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
            self._clear_range()
            run.seq_id = self._memory.branch(other.seq_id, num_beside)
        elif entry is not None and self._memory.is_worth_branching(entry.seq_id, num_kept):
            # Whole it will be kept again with the sequence, which covers it.
            if self._memory.has_ranges or num_kept == len(entry.tokens):
                run.seq_id = self._prefixes.take(entry, num_kept)
            else:
                run.seq_id = self._memory.branch(entry.seq_id, num_kept)
        else:
            self._clear_range()
            run.seq_id = self._memory.open_seq()
        run.num_in_cache = self._memory.book.length(run.seq_id)
        if run.num_generated == 0 and not run.has_moved:
            run.num_cached = run.num_in_cache

    def leader_of(self, run: Running, running: Collection[Running]) -> Running | None:
        """Who is reading more of this sequence's beginning than the cache has."""
        if not self._prefixes.can_trim:
            return None
        wanted = _reusable(run)
        for other in running:
            if other.adapter != run.adapter or other.leader is not None:
                continue
            length = num_common(other.known, wanted)
            if length >= run.num_in_cache + _MIN_SHARED and other.num_in_cache < length:
                return other
        return None

    def has_followed(self, run: Running, leader: Running) -> bool:
        """Whether the leader has read what the two share."""
        return leader.num_in_cache >= num_common(leader.known, _reusable(run))

    def close_ranks(self, running: Collection[Running]) -> None:
        """Those that run lie side by side again, if that makes their calls shorter.

        A new sequence would fill the hole by itself, so it is given some steps to come.
        """
        if not isinstance(self._memory, SlotRanges) or len(running) < 2:
            return
        runs = sorted(running, key=lambda run: run.seq_id)
        are_apart = self._memory.are_apart([run.seq_id for run in runs])
        self._num_steps_apart = self._num_steps_apart + 1 if are_apart else 0
        if self._num_steps_apart > _STEPS_APART:
            outer = min(runs[0], runs[-1], key=lambda run: run.num_in_cache)
            self._clear_range()
            outer.seq_id = self._memory.move(outer.seq_id)

    def _num_ready(self, run: Running, wanted: IntArray) -> int:
        """Tokens that lie somewhere for this sequence alone."""
        _, num_kept = self._prefixes.find(wanted, run.adapter)
        _, num_shelved = (None, 0) if self._shelf is None else self._shelf.find(wanted, run.adapter)
        return max(num_kept, num_shelved)

    def _clear_range(self) -> None:
        """The range that the next sequence should have becomes free."""
        if isinstance(self._memory, SlotRanges):
            in_the_way = self._memory.in_the_way
            if in_the_way is not None:
                self._prefixes.evict_seq(in_the_way)

    def _restore(self, run: Running, wanted: IntArray, at_least: int) -> int | None:
        """A sequence with a state from the shelf, if it has so many of the wanted tokens."""
        if self._shelf is None:
            return None
        shelved, length = self._shelf.find(wanted, run.adapter)
        if shelved is None or length < max(at_least, len(shelved.tokens) // 4):
            return None
        if len(shelved.tokens) > self._memory.longest:
            return None
        while self._memory.num_free < len(shelved.tokens) and self._prefixes.evict():
            pass
        if self._memory.num_free < len(shelved.tokens):
            return None
        self._clear_range()
        seq_id = self._shelf.restore(shelved)
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
