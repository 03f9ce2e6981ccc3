"""What callers use of the model, for the fair choice of the next job (``TAKE``)."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from jobs.contract.records import JobClass


class CallersJob(Protocol):
    """What is asked about a running job."""

    job_id: str
    caller: str
    weight: float

    @property
    def job_class(self) -> JobClass: ...

    @property
    def num_sequences(self) -> int: ...

    @property
    def num_read(self) -> int:
        """Prompt tokens that had to be read."""

    @property
    def num_since_start(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Use:
    """What callers have used since the last take, in tokens divided by weight, by
    ``<class>:<caller>``; and how many sequences of each run.

    ``num_taking``: jobs that other consumers may have taken, and that are not counted yet.
    """

    used: Mapping[str, float] = field(default_factory=dict)
    running: Mapping[str, int] = field(default_factory=dict)
    num_taking: int = 0


class UseOfTakes(Protocol):
    """What the takes of one consumer ask and tell."""

    def begin_take(self) -> Use:
        """Called before each take."""

    def end_take(self) -> None:
        """A take has found no job. If it has found one, its start ends the take."""


class FairUse:
    """Adds up tokens by caller and class. Nothing is done per token; any thread may call it."""

    def __init__(self, output_weight: float) -> None:
        self._output_weight = output_weight
        self._jobs: dict[str, tuple[CallersJob, float]] = {}
        self._used: dict[str, float] = defaultdict(float)
        self._taking: set[JobClass] = set()
        self._lock = threading.Lock()

    def begin(self, job: CallersJob) -> None:
        with self._lock:
            self._jobs[job.job_id] = job, 0.0
            self._note(job.job_id)
            self._taking.discard(job.job_class)

    def end(self, job: CallersJob) -> None:
        with self._lock:
            if job.job_id in self._jobs:
                self._note(job.job_id)
                del self._jobs[job.job_id]

    def of(self, job_class: JobClass) -> UseOfTakes:
        """For the consumer of that class."""
        return _ClassUse(self, job_class)

    def begin_take(self, job_class: JobClass) -> Use:
        """See ``UseOfTakes``."""
        with self._lock:
            self._taking.add(job_class)
            for job_id in self._jobs:
                self._note(job_id)
            used = {field: tokens for field, tokens in self._used.items() if tokens}
            self._used.clear()
            running: Counter[str] = Counter()
            for job, _ in self._jobs.values():
                running[job.caller] += job.num_sequences
            return Use(used, running, len(self._taking - {job_class}))

    def end_take(self, job_class: JobClass) -> None:
        """See ``UseOfTakes``."""
        with self._lock:
            self._taking.discard(job_class)

    def _note(self, job_id: str) -> None:
        job, noted = self._jobs[job_id]
        tokens = (job.num_read + self._output_weight * job.num_since_start) / job.weight
        self._used[f"{job.job_class}:{job.caller}"] += tokens - noted
        self._jobs[job_id] = job, tokens


@dataclass(frozen=True, slots=True)
class _ClassUse:
    fair_use: FairUse
    job_class: JobClass

    def begin_take(self) -> Use:
        return self.fair_use.begin_take(self.job_class)

    def end_take(self) -> None:
        self.fair_use.end_take(self.job_class)
