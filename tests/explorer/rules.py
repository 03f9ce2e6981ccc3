"""The parameters of a world, and its states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

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
    num_supervisors: int = 2
    num_workers: int = 3

    @property
    def has_loads(self) -> bool:
        return self.loads > 0


class FaultBudget(NamedTuple):
    """Numbers of faults that may still happen, and of decisions to park or close the model."""

    losses: int
    delays: int
    worker_deaths: int
    supervisor_deaths: int
    expiries: int
    parks: int = 0
    closes: int = 0


class State(NamedTuple):
    """A state of the world, in few numbers. ``delayed``: positions of requests that may yet arrive;
    no process waits for their replies."""

    redis: int
    supervisors: tuple[Supervisor, ...]
    workers: tuple[Worker, ...]
    clients: tuple[Client, ...]
    budget: FaultBudget
    delayed: tuple[int, ...] = ()
