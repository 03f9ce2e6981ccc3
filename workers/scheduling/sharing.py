"""Which jobs run beside each other: interactive ones first, batch ones while they cost little."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from jobs.contract.records import JobClass
from workers.scheduling.fair_use import CallersJob, FairUse
from workers.scheduling.slots import SlotLimiter
from workers.scheduling.start_rates import StartRates
from workers.scheduling.step_costs import StepCosts

_MANY_YIELDS = 8  # a job that has given way so often is left alone for a quantum


class RunningJob(CallersJob, Protocol):
    """What is asked about a running job."""

    num_yields: int
    is_pinned: bool

    @property
    def is_reading(self) -> bool:
        """Whether its prompt is being read, or waits for that."""


class Sharing:
    """Shares the slots between the classes and notes what callers use.

    A batch job is given a ``quantum`` of tokens before it gives way, while others can. The engine's
    thread calls it; ``enter`` and ``fair_use`` may be used by any.
    """

    def __init__(
        self,
        slots: SlotLimiter,
        slowdown: float = 1.25,
        quantum: int = 32,
        output_weight: float = 2.0,
    ) -> None:
        self.slots = slots
        self.fair_use = FairUse(output_weight)
        self.starts = StartRates()
        self._costs = StepCosts(slowdown)
        self._quantum = quantum

    def enter(self, job: RunningJob) -> None:
        """The job takes its slots. Its sequences give them back one by one (``leave``)."""
        self.slots.take(job.num_sequences, job.job_class)
        self.fair_use.begin(job)
        if job.job_class == "batch":
            is_due = job.num_yields > 0 and job.num_yields % _MANY_YIELDS == 0
            job.is_pinned = self.slots.pin(job.num_sequences, is_due=is_due)

    def leave(self, job: RunningJob, num_sequences: int) -> None:
        """So many sequences of the job have ended."""
        if job.is_pinned:
            self.slots.unpin(num_sequences)
        self.slots.give(num_sequences, job.job_class)

    def victims(self, running: Iterable[RunningJob]) -> list[RunningJob]:
        """The batch jobs that make room for an interactive one that enters.

        Those whose prompt is read give way in any case: an engine reads prompts in order. Others do
        if the slots are full, or if their rows would slow down the interactive ones too much.
        """
        slots, found = self.slots, []
        limit = self._costs.num_beside(slots.num_of("interactive"), slots.num_slots)
        excess = max(slots.num_excess, slots.num_of("batch") - limit)
        for job in sorted(_yielding(running), key=self._rank):
            if job.is_reading or excess > 0:
                found.append(job)
                excess -= job.num_sequences
        return found

    def note_step(
        self, running: Iterable[RunningJob], seconds: float, *, has_prefilled: bool
    ) -> RunningJob | None:
        """Learn from a step. Returns a batch job that must give way after it, if one must."""
        jobs = list(running)
        num_batch, num_interactive = self.slots.num_of("batch"), self.slots.num_of("interactive")
        decoding = [job for job in jobs if not job.is_reading]
        num_decoding = _num_sequences(decoding, "interactive")
        is_read = any(job.is_reading for job in jobs if job.job_class == "interactive")
        if decoding and not has_prefilled:
            self._costs.note(_num_sequences(decoding), seconds)
        limit = self._costs.num_beside(num_interactive, self.slots.num_slots)
        is_beside = num_decoding > 0 and not is_read
        if is_beside and num_batch:
            self._costs.charge(num_decoding, seconds)
        is_in_debt = is_beside and self._costs.is_in_debt
        self.slots.limit_batch(0 if is_in_debt else limit, is_reading=is_read)
        if not num_batch:
            return None
        self._unpin(jobs)
        if is_read and not has_prefilled:
            return min(_yielding(jobs), key=self._rank, default=None)  # it has no room in memory
        if not is_beside:
            return None
        reading = [job for job in _yielding(jobs) if job.is_reading]
        if is_in_debt and reading:
            return reading[0]
        ready = [job for job in _yielding(jobs) if not self._is_young(job)]
        return min(ready, key=self._rank, default=None) if num_batch > limit else None

    def _unpin(self, jobs: Iterable[RunningJob]) -> None:
        for job in jobs:
            if job.is_pinned and job.num_since_start >= self._quantum * job.num_sequences:
                job.is_pinned = False
                self.slots.unpin(job.num_sequences)

    def _is_young(self, job: RunningJob) -> bool:
        return not job.is_reading and job.num_since_start < self._quantum * job.num_sequences

    def _rank(self, job: RunningJob) -> tuple[bool, bool, int]:
        """Those whose prompt is still read give way first, then those that said least."""
        return self._is_young(job), not job.is_reading, job.num_since_start


def _yielding(jobs: Iterable[RunningJob]) -> list[RunningJob]:
    return [job for job in jobs if job.job_class == "batch" and not job.is_pinned]


def _num_sequences(jobs: Iterable[RunningJob], job_class: JobClass | None = None) -> int:
    return sum(job.num_sequences for job in jobs if job_class in (None, job.job_class))
