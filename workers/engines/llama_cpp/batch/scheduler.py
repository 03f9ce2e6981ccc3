"""Decides which sequences run and what the next decode pass contains.

Admission is optimistic: a sequence starts when its prompt fits into the KV cells, even if its
longest output would not. When the cells run out, kept prefixes are evicted first; then the youngest
sequence is preempted: it goes to the front of the queue and is prefilled again later. The oldest
sequence always advances, and the cells hold at least one whole context, so every sequence ends.
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

_BUDGETS_WITHOUT_DECODING = 4
_STEPS_PER_ADAPTER = 4  # after a switch llama.cpp has to build its graph again


class Scheduler:
    """Sequences in order of arrival; at most ``num_slots`` of them run.

    A pass prefills at most ``max_prefill`` tokens; a prompt's remainder of less than a tile is
    added to them.
    """

    def __init__(
        self,
        memory: KvMemory,
        prefixes: PrefixCache,
        host_cache: HostCache | None,
        num_slots: int,
        tuning: StepTuning,
        max_prefill: int,
        *,
        is_on_cpu: bool,
    ) -> None:
        self._num_slots = num_slots
        self._tile = tuning.tile
        self._max_prefill = max_prefill
        self._waiting: deque[Running] = deque()
        self._running: dict[int, Running] = {}
        self._is_interleaved = tuning.is_interleaved
        self._was_prefill = False
        self._adapter: str | None = None
        self._num_steps_with_adapter = 0
        self._memory = memory
        self._prefixes = prefixes
        self._placement = Placement(memory, prefixes, host_cache, slows_idle=is_on_cpu)
        self._is_on_cpu = is_on_cpu

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    @property
    def running(self) -> list[Running]:
        """The sequences with a slot, the oldest first."""
        return list(self._running.values())

    @property
    def all_runs(self) -> list[Running]:
        """All running and waiting sequences."""
        return [*self._running.values(), *self._waiting]

    def enqueue(self, run: Running) -> None:
        self._waiting.append(run)

    def find(self, sequence_id: int) -> Running | None:
        """The running or waiting sequence with this id, if any."""
        return self._running.get(sequence_id) or next(
            (run for run in self._waiting if run.sequence.sequence_id == sequence_id), None
        )

    def remove(self, run: Running, *, is_kept: bool = True) -> None:
        """Remove a sequence; with ``is_kept`` its KV state goes to the prompt cache."""
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
        """Remove all sequences."""
        for run in self.all_runs:
            self.remove(run)

    # Admission

    def admit(self) -> None:
        """Start waiting sequences in order; one that does not fit blocks those behind it."""
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
        """The contents of the next decode pass; all parts use the same adapter.

        With ``tuning.is_interleaved``, passes alternate between decode and prefill; otherwise a
        pass does both. Prefill takes ``budget`` tokens, or four times as many if no sequence
        decodes and the pass can be aborted (``can_stop``), or on a GPU nobody else waits.
        """
        self._release_followers()
        chosen = self._runs_of_one_adapter()
        decoding = [Part(run, 1) for run in chosen if run.num_uncomputed == 1]
        prompts = [run for run in chosen if run.num_uncomputed > 1 and run.leader is None]
        if not decoding:
            is_alone = not self._is_on_cpu and len(self.all_runs) == 1
            num_budgets = _BUDGETS_WITHOUT_DECODING if can_stop or is_alone else 1
            return self._prefill(prompts, budget * num_budgets)
        if prompts and self._is_interleaved:
            self._was_prefill = not self._was_prefill
            return self._prefill(prompts, budget) if self._was_prefill else decoding
        return decoding + self._prefill(prompts, budget)

    def _prefill(self, prompts: list[Running], budget: int) -> list[Part]:
        budget = min(budget, self._max_prefill)
        if len(prompts) == 1 and budget < prompts[0].num_to_prefill < budget + self._tile:
            budget = prompts[0].num_to_prefill
        return split_prefill_budget(prompts, budget)

    def end_pauses(self) -> None:
        """After a decode pass: copy the states of sequences that have paused for it."""
        for run in self._running.values():
            if run.pauses and run.num_in_cache == run.pauses[0]:
                run.pauses.pop(0)
                self._placement.store(run)

    def fit(self, parts: list[Part]) -> list[Part]:
        """Free KV cells for ``parts`` by eviction and preemption; returns the remaining parts."""
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
        """Free the cells of a sequence and put it at the front of the queue."""
        self._memory.release(run.seq_id)
        del self._running[run.sequence.sequence_id]
        run.seq_id, run.num_in_cache, run.leader = -1, 0, None
        run.scores.clear()
        self._waiting.appendleft(run)

    def _release_followers(self) -> None:
        """Place sequences again whose leader has prefilled the common prefix, or has ended."""
        for run in self._running.values():
            leader = run.leader
            if leader is None:
                continue
            is_running = self._running.get(leader.sequence.sequence_id) is leader
            if not is_running or self._placement.is_leader_done(run, leader):
                self._memory.release(run.seq_id)
                self._place(run)

    def _runs_of_one_adapter(self) -> list[Running]:
        """The running sequences of one adapter; another one's turn comes after a few steps."""
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
