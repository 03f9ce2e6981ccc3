"""Who runs, who waits, and what goes into the next step.

Admission is optimistic: a sequence starts when its prompt fits, not when all that it may come to
need does. When the pool runs full, kept prefixes leave first; then the youngest sequence goes back
to the front of the queue, to be read again later. The oldest always advances, and the pool holds
at least one whole context, so all come to their end and none is hurt by another one's length.
"""

from __future__ import annotations

import math
from collections import deque

from workers.engines.llama_cpp.batch import IntArray
from workers.engines.llama_cpp.memory import KvMemory
from workers.engines.llama_cpp.parts import Part, share_out
from workers.engines.llama_cpp.prefixes import PrefixCache, num_common, rows_foreseen
from workers.engines.llama_cpp.running import Running
from workers.engines.llama_cpp.shelf import Shelf
from workers.engines.llama_cpp.slot_ranges import SlotRanges
from workers.engines.llama_cpp.turns import BUDGETS_PER_CALL, Turns

_RESERVED = 64  # cells kept free per sequence at an admission, so that it is not preempted at once
_MIN_SHARED = 32  # tokens worth waiting for a leader, or keeping an entry in the way
_MIN_RESTORED = 64  # tokens that a copy from the shelf must save
_STEPS_APART = 4
_STEPS_PER_ADAPTER = 4  # a switch makes llama.cpp plan its graph anew


class Scheduler:
    """Sequences in the order of their arrival, at most ``num_slots`` of them running.

    The end of a prompt that is shorter than ``tile`` is read together with what comes before it.
    A step reads ``most_read`` tokens of prompts at most, and such an end.
    """

    def __init__(
        self,
        memory: KvMemory,
        prefixes: PrefixCache,
        shelf: Shelf | None,
        num_slots: int,
        tile: int = 1,
        most_read: int = 1 << 30,
    ) -> None:
        self._memory = memory
        self._prefixes = prefixes
        self._shelf = shelf
        self._num_slots = num_slots
        self._tile = tile
        self._most_read = most_read
        self._waiting: deque[Running] = deque()
        self._running: dict[int, Running] = {}
        self._turns = Turns()
        self._adapter: str | None = None
        self._num_steps_with_adapter = 0
        self._num_steps_apart = 0
        self.has_outgrown = False

    def use(self, memory: KvMemory, prefixes: PrefixCache) -> None:
        """Start sequences there from now on; none has a slot."""
        self._memory = memory
        self._prefixes = prefixes
        self.has_outgrown = False

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    @property
    def running(self) -> list[Running]:
        """Those with a slot, the oldest first."""
        return list(self._running.values())

    @property
    def all_runs(self) -> list[Running]:
        """Those with a slot and those that wait."""
        return [*self._running.values(), *self._waiting]

    def enqueue(self, run: Running) -> None:
        self._waiting.append(run)

    def find(self, sequence_id: int) -> Running | None:
        """A sequence, running or waiting."""
        return self._running.get(sequence_id) or next(
            (run for run in self._waiting if run.sequence.sequence_id == sequence_id), None
        )

    def remove(self, run: Running, *, is_kept: bool = True) -> None:
        """The sequence has ended; what is in the cache of it may serve others."""
        run.sampler.close()
        if run.seq_id < 0:
            self._waiting.remove(run)
            return
        del self._running[run.sequence.sequence_id]
        if is_kept:
            self._prefixes.keep(run.seq_id, run.tokens[: run.num_in_cache], run.adapter)
        else:
            self._memory.release(run.seq_id)

    def clear(self) -> None:
        """Forget all sequences."""
        for run in self.all_runs:
            self.remove(run)

    def vacate(self) -> None:
        """All that run wait again, in their order; what the cache has of them is kept."""
        for run in reversed(self.running):
            self._prefixes.keep(run.seq_id, run.tokens[: run.num_in_cache], run.adapter)
            run.has_moved = True
            self._send_back(run)

    # Admission

    def admit(self) -> None:
        """Start waiting sequences in order; one that has to wait holds those behind it."""
        while self._waiting and len(self._running) < self._num_slots:
            run = self._waiting[0]
            if not self._start(run):
                return
            self._waiting.popleft()
            self._running[run.sequence.sequence_id] = run

    def _start(self, run: Running) -> bool:
        if run.num_known + min(_RESERVED, run.num_open) > self._memory.longest:
            self.has_outgrown = True
            return False
        if not isinstance(self._memory, SlotRanges) and not self._make_room(run):
            return False
        self._open_seq(run)
        run.leader = self._leader_of(run)
        return True

    def _make_room(self, run: Running) -> bool:
        """Free cells of the pool."""
        entry, num_found = self._prefixes.find(self._reusable(run), run.adapter)
        needed = run.num_pending - num_found
        running = [*self._running.values(), run]
        reserved = sum(min(_RESERVED, other.num_open) for other in running)
        while self._memory.num_free < needed + reserved:
            if not self._prefixes.evict(spared=entry):
                break
        if self._memory.num_free < needed + reserved and self._running:
            return False
        if self._shelf is not None:
            # The threads of a lone one divide the cells up to the last one between them: with idle
            # cells before its own, some have nothing to do.
            shared = entry if num_found >= _MIN_SHARED else None
            num_rows = rows_foreseen(needed, run.num_open) if self._running else math.inf
            self._prefixes.clear_idle(num_rows, shared)
        return True

    def _open_seq(self, run: Running) -> None:
        """A sequence that holds as much of the text as is in the cache anywhere."""
        wanted = self._reusable(run)
        entry, num_kept = self._prefixes.find(wanted, run.adapter)
        other, num_beside = self._nearest_running(run, wanted)
        if self._restore(run, wanted, at_least=max(num_kept, num_beside) + _MIN_RESTORED):
            pass
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

    def _clear_range(self) -> None:
        """The range that the next sequence should have becomes free."""
        if isinstance(self._memory, SlotRanges):
            in_the_way = self._memory.in_the_way
            if in_the_way is not None:
                self._prefixes.evict_seq(in_the_way)

    def _restore(self, run: Running, wanted: IntArray, at_least: int) -> bool:
        """A sequence with a state from the shelf, if it has so many of the wanted tokens."""
        if self._shelf is None:
            return False
        shelved, length = self._shelf.find(wanted, run.adapter)
        if shelved is None or length < max(at_least, len(shelved.tokens) // 4):
            return False
        if len(shelved.tokens) > self._memory.longest:
            return False
        while self._memory.num_free < len(shelved.tokens) and self._prefixes.evict():
            pass
        if self._memory.num_free < len(shelved.tokens):
            return False
        self._clear_range()
        seq_id = self._shelf.restore(shelved)
        if seq_id is None:
            return False
        self._memory.truncate(seq_id, length)
        run.seq_id = seq_id
        return True

    def _reusable(self, run: Running) -> IntArray:
        """What may come from the cache: not the last token, whose logits are wanted."""
        return run.tokens[: 0 if run.is_scoring else run.num_known - 1]

    def _nearest_running(self, run: Running, wanted: IntArray) -> tuple[Running | None, int]:
        best, best_length = None, 0
        if not self._prefixes.can_trim:
            return best, best_length
        for other in self._running.values():
            if other is run or other.adapter != run.adapter:
                continue
            length = num_common(other.tokens[: other.num_in_cache], wanted)
            if length > best_length and self._memory.is_worth_branching(other.seq_id, length):
                best, best_length = other, length
        return best, best_length

    def _leader_of(self, run: Running) -> Running | None:
        """Who is reading more of this sequence's beginning than the cache has."""
        if not self._prefixes.can_trim:
            return None
        wanted = self._reusable(run)
        for other in self._running.values():
            if other.adapter != run.adapter or other.leader is not None:
                continue
            length = num_common(other.known, wanted)
            if length >= run.num_in_cache + _MIN_SHARED and other.num_in_cache < length:
                return other
        return None

    # The next step

    def plan(self, budget: int, *, can_stop: bool = False) -> list[Part]:
        """Who decodes and what is read of prompts in the next call; only one adapter's.

        Where attention computes in tiles they take turns, else every decoding sequence goes along.
        ``budget`` tokens for each prompt that is being read beside them: each step of decoding
        makes all that wait for their first token wait longer. Where nothing decodes four times as
        much, if ``can_stop``: the call can be broken off. Less than a tile more, where that is all
        that is left.
        """
        self._settle_followers()
        self._close_ranks()
        chosen = self._runs_of_one_adapter()
        decoding = [Part(run, 1) for run in chosen if run.num_pending == 1]
        reading = [run for run in chosen if run.num_pending > 1 and run.leader is None]
        if not decoding:
            num_budgets = BUDGETS_PER_CALL if can_stop else 1
        elif self._tile == 1 or not reading:
            num_budgets = min(len(reading), BUDGETS_PER_CALL)
        else:
            num_budgets = self._turns.next(len(reading))
            if num_budgets > 0:
                decoding = []
        return decoding + self._read(reading, budget * num_budgets)

    def _read(self, reading: list[Running], budget: int) -> list[Part]:
        if budget == 0:
            return []
        budget = min(budget, self._most_read)
        if len(reading) == 1 and budget < reading[0].num_pending < budget + self._tile:
            budget = reading[0].num_pending
        return share_out(reading, budget)

    def fit(self, parts: list[Part]) -> list[Part]:
        """The parts that find cells, which are made free for them."""
        if self._memory.has_ranges:
            longest = self._memory.longest
            self.has_outgrown = any(p.run.num_in_cache + p.num_rows > longest for p in parts)
            return [] if self.has_outgrown else parts
        while True:
            needed = sum(part.num_rows for part in parts)
            while self._memory.num_free < needed and self._prefixes.evict():
                pass
            if self._memory.num_free >= needed:
                return parts
            youngest = self.running[-1]
            self._preempt(youngest)
            parts = [part for part in parts if part.run is not youngest]

    def _preempt(self, run: Running) -> None:
        self._memory.release(run.seq_id)
        self._send_back(run)

    def _send_back(self, run: Running) -> None:
        del self._running[run.sequence.sequence_id]
        run.seq_id, run.num_in_cache, run.leader = -1, 0, None
        run.scores.clear()
        self._waiting.appendleft(run)

    def _settle_followers(self) -> None:
        """Those whose leader has read what they share, or is gone, go their own way."""
        for run in self._running.values():
            leader = run.leader
            if leader is None:
                continue
            is_there = self._running.get(leader.sequence.sequence_id) is leader
            shared = num_common(leader.known, self._reusable(run))
            if not is_there or leader.num_in_cache >= shared:
                self._memory.release(run.seq_id)
                self._open_seq(run)
                run.leader = self._leader_of(run)

    def _close_ranks(self) -> None:
        """Those that run lie side by side again, if that makes a call shorter for long enough.

        A new sequence would fill the gap by itself, so it is given some steps to come.
        """
        if not isinstance(self._memory, SlotRanges) or len(self._running) < 2:
            return
        runs = sorted(self._running.values(), key=lambda run: run.seq_id)
        are_apart = self._memory.are_apart([run.seq_id for run in runs])
        self._num_steps_apart = self._num_steps_apart + 1 if are_apart else 0
        if self._num_steps_apart > _STEPS_APART:
            outer = min(runs[0], runs[-1], key=lambda run: run.num_in_cache)
            self._clear_range()
            outer.seq_id = self._memory.move(outer.seq_id)

    def _runs_of_one_adapter(self) -> list[Running]:
        groups: dict[str | None, list[Running]] = {}
        for run in self._running.values():
            groups.setdefault(run.adapter, []).append(run)
        if not groups:
            return []
        self._num_steps_with_adapter += 1
        is_due = self._num_steps_with_adapter > _STEPS_PER_ADAPTER
        if self._adapter not in groups or (is_due and len(groups) > 1):
            order = [*groups, *groups]
            following = order.index(self._adapter) + 1 if self._adapter in groups else 0
            self._adapter = order[following]
            self._num_steps_with_adapter = 1
        return groups[self._adapter]
