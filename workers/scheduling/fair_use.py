"""What callers use of the model, for the fair choice of the next job (``TAKE``)."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
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


class FairUse:
    """Adds up tokens by caller and class. Nothing is done per token; any thread may call it."""

    def __init__(self, output_weight: float) -> None:
        self._output_weight = output_weight
        self._jobs: dict[str, tuple[CallersJob, float]] = {}
        self._used: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def begin(self, job: CallersJob) -> None:
        with self._lock:
            self._jobs[job.job_id] = job, 0.0
            self._note(job.job_id)

    def end(self, job: CallersJob) -> None:
        with self._lock:
            if job.job_id in self._jobs:
                self._note(job.job_id)
                del self._jobs[job.job_id]

    def collect(self) -> tuple[dict[str, float], dict[str, int]]:
        """Tokens since the last call, divided by weight, by ``<class>:<caller>``; and the number of
        running sequences by caller."""
        with self._lock:
            for job_id in self._jobs:
                self._note(job_id)
            used = {field: tokens for field, tokens in self._used.items() if tokens}
            self._used.clear()
            running: Counter[str] = Counter()
            for job, _ in self._jobs.values():
                running[job.caller] += job.num_sequences
            return used, dict(running)

    def _note(self, job_id: str) -> None:
        job, noted = self._jobs[job_id]
        tokens = (job.num_read + self._output_weight * job.num_since_start) / job.weight
        self._used[f"{job.job_class}:{job.caller}"] += tokens - noted
        self._jobs[job_id] = job, tokens
