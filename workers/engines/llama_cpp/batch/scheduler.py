"""Who runs, who waits, and what goes into the next step.

Admission is optimistic: a sequence starts when its prompt fits, not when all that it may come to
need does. When the pool runs full, kept prefixes leave first; then the youngest sequence goes back
to the front of the queue, to be read again later. The oldest always advances, and the pool holds
at least one whole context, so all come to their end and none is hurt by another one's length.
"""

from __future__ import annotations

from collections import deque

from workers.engines.llama_cpp.batch.placement import Placement
from workers.engines.llama_cpp.batch.prefill_budget import (
    Part,
    split_prefill_budget,
)
from workers.engines.llama_cpp.batch.running import Running
from workers.engines.llama_cpp.batch.step_tuning import StepTuning
from workers.engines.llama_cpp.cache.host_cache import HostCache
from workers.engines.llama_cpp.cache.memory import KvMemory
from workers.engines.llama_cpp.cache.prefixes import PrefixCache

_BUDGETS_ALONE = 4
_STEPS_PER_ADAPTER = 4  # a switch makes llama.cpp plan its graph anew


class Scheduler:
    """Sequences in the order of their arrival, at most ``num_slots`` of them running.

    The end of a prompt that is shorter than a tile is read together with what comes before it.
    A step reads ``most_read`` tokens of prompts at most, and such an end.
    """

    def __init__(
        self,
        memory: KvMemory,
        prefixes: PrefixCache,
        host_cache: HostCache | None,
        num_slots: int,
        tuning: StepTuning,
        most_read: int,
    ) -> None:
        self._num_slots = num_slots
        self._tile = tuning.tile
        self._most_read = most_read
        self._waiting: deque[Running] = deque()
        self._running: dict[int, Running] = {}
        self._is_interleaved = tuning.is_interleaved
        self._has_read = False
        self._adapter: str | None = None
        self._num_steps_with_adapter = 0
        self._memory = memory
        self._prefixes = prefixes
        self._placement = Placement(memory, prefixes, host_cache)

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
        if not self._placement.make_room(run, self._running.values()):
            return False
        self._place(run)
        return True

    def _place(self, run: Running) -> None:
        self._placement.open_seq(run, self._running.values())
        run.leader = self._placement.leader_of(run, self._running.values())

    # The next step

    def plan(self, budget: int, *, can_stop: bool = False) -> list[Part]:
        """Who decodes and what is read of prompts in the next pass; only one adapter's.

        Where ``tuning`` says so a pass decodes or reads, in turn; else it does both. ``budget``
        tokens of prompts are read. Where nothing decodes four times as much, if ``can_stop``: the
        pass can be broken off. Less than a tile more, where that is all that is left.
        """
        self._settle_followers()
        chosen = self._runs_of_one_adapter()
        decoding = [Part(run, 1) for run in chosen if run.num_uncomputed == 1]
        reading = [run for run in chosen if run.num_uncomputed > 1 and run.leader is None]
        if not decoding:
            return self._read(reading, budget * (_BUDGETS_ALONE if can_stop else 1))
        if reading and self._is_interleaved:
            self._has_read = not self._has_read
            return self._read(reading, budget) if self._has_read else decoding
        return decoding + self._read(reading, budget)

    def _read(self, reading: list[Running], budget: int) -> list[Part]:
        budget = min(budget, self._most_read)
        if len(reading) == 1 and budget < reading[0].num_uncomputed < budget + self._tile:
            budget = reading[0].num_uncomputed
        return split_prefill_budget(reading, budget)

    def fit(self, parts: list[Part]) -> list[Part]:
        """The parts that find cells, which are made free for them."""
        if self._memory.is_per_slot:
            return parts
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
            if not is_there or self._placement.has_followed(run, leader):
                self._memory.release(run.seq_id)
                self._place(run)

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
