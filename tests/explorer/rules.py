"""The parameters of a world, and its states."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

from jobs.contract.records import JobClass
from tests.explorer.actors import Client, Supervisor, Worker


@dataclass(frozen=True, slots=True)
class Rules:
    """``tokens``: of each job. ``slots``: jobs that a worker runs at once.

    Numbers of faults: ``losses`` of replies or requests; ``delays``: requests that arrive after
    their sender has given up or died; deaths; ``expiries``: a supervisor is frozen until its lock
    has expired.

    ``cancelled``: indexes of the jobs that a client cancels; ``has_purge``, ``has_sweep``: one
    purge, one sweep of all queued jobs. ``has_one_node``: the second supervisor is the successor of
    the first on the same node. ``loads`` and ``unloads`` of the model; without loads it is desired
    all the time. ``parks`` and ``closes``: how often a supervisor parks or closes the model, at any
    moment; only in worlds with loads. ``has_unclaimed_job``: the first job is in RQ's intermediate
    list without a claim, as after an older version's take.

    ``batch``: indexes of the jobs of the class batch; ``lines``: of those that are lines of a
    batch, which its runner submits, reads and deletes. ``yields``: how often a worker hands a
    running job back, at any moment. ``holds``: like "hold batch" or "drain interactive": a
    client does that, and resumes the class. ``callers``: of each job; with them, what they use is
    counted. ``max_running`` of each caller. ``runner_deaths``: the runner of lines begins anew with
    what it has saved; ``retries``: how often it runs a line again whose answer it does not keep,
    as another job.
    """

    tokens: tuple[int, ...] = (2, 1, 1)
    slots: int = 1
    losses: int = 0
    delays: int = 0
    worker_deaths: int = 0
    supervisor_deaths: int = 0
    expiries: int = 0
    cancelled: tuple[int, ...] = ()
    has_purge: bool = False
    has_sweep: bool = False
    has_one_node: bool = False
    loads: int = 0
    unloads: int = 0
    parks: int = 0
    closes: int = 0
    has_unclaimed_job: bool = False
    batch: tuple[int, ...] = ()
    lines: tuple[int, ...] = ()
    yields: int = 0
    holds: tuple[str, ...] = ()
    callers: tuple[str, ...] = ()
    max_running: int = 0
    runner_deaths: int = 0
    retries: int = 0
    num_supervisors: int = 2
    num_workers: int = 3

    @property
    def has_loads(self) -> bool:
        return self.loads > 0

    @property
    def jobs(self) -> dict[str, int]:
        """The number of tokens of each job, by id."""
        found = {f"j{index}": num for index, num in enumerate(self.tokens)}
        again = itertools.product(range(1, self.retries + 1), self.lines)
        return found | {f"j{run * self.width + line}": self.tokens[line] for run, line in again}

    @property
    def width(self) -> int:
        """By how much the index of a line's job grows when it is run again."""
        return len(self.tokens)

    def index_of(self, job: str) -> int:
        """The index of a job, for a line that of its first."""
        return int(job[1:]) % self.width

    def class_of(self, job: str) -> JobClass:
        """The class of a job."""
        return "batch" if self.index_of(job) in self.batch + self.lines else "interactive"

    def is_line(self, job: str) -> bool:
        """Whether a runner submits the job, as a line of a batch."""
        return self.index_of(job) in self.lines

    @property
    def classes(self) -> tuple[JobClass, ...]:
        """The classes that have jobs."""
        return tuple(sorted({self.class_of(job) for job in self.jobs}))

    @property
    def lanes(self) -> tuple[str, ...]:
        """The consumers of a worker that may find a job."""
        has_batch, has_others = "batch" in self.classes, "interactive" in self.classes
        kinds = {"gen": has_others or not has_batch, "batch": has_batch, "ctl": self.has_loads}
        return tuple(kind for kind, is_used in kinds.items() if is_used)


class FaultBudget(NamedTuple):
    """Numbers of faults that may still happen, and of decisions to park or close the model, or to
    hand a job back."""

    losses: int
    delays: int
    worker_deaths: int
    supervisor_deaths: int
    expiries: int
    parks: int = 0
    closes: int = 0
    yields: int = 0
    runner_deaths: int = 0
    retries: int = 0


class State(NamedTuple):
    """A state of the world, in few numbers. ``delayed``: positions of requests that may yet arrive;
    no process waits for their replies."""

    redis: int
    supervisors: tuple[Supervisor, ...]
    workers: tuple[Worker, ...]
    clients: tuple[Client, ...]
    budget: FaultBudget
    delayed: tuple[int, ...] = ()
