"""What a world has, and what may happen in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tests.explorer.actors import Client, Supervisor, Worker


@dataclass(frozen=True, slots=True)
class Rules:
    """``tokens``: of each job. ``slots``: jobs that a worker runs at once.

    Faults: ``losses`` of replies or requests; ``lates``: requests that arrive after whoever sent
    them has given up or is dead; deaths; ``expiries``: how often a supervisor is frozen for so long
    that its lock runs out.

    ``cancelled``: places of the jobs of which a client wants the end; ``has_purge``, ``has_sweep``:
    somebody ends all that wait, once. ``has_one_node``: the second supervisor is the first one's
    successor on its node. ``loads`` and ``unloads``: how often the model is loaded and unloaded;
    without any it is wanted for ever. ``has_stray``: the first job lies in RQ's intermediate list
    without a claim, as after an older version's take.
    """

    tokens: tuple[int, ...] = (2, 1, 1)
    slots: int = 1
    losses: int = 0
    lates: int = 0
    worker_deaths: int = 0
    supervisor_deaths: int = 0
    expiries: int = 0
    cancelled: tuple[int, ...] = ()
    has_purge: bool = False
    has_sweep: bool = False
    has_one_node: bool = False
    loads: int = 0
    unloads: int = 0
    has_stray: bool = False
    num_supervisors: int = 2
    num_workers: int = 3

    @property
    def has_loads(self) -> bool:
        return self.loads > 0


class Left(NamedTuple):
    """How many faults may still happen."""

    losses: int
    lates: int
    worker_deaths: int
    supervisor_deaths: int
    expiries: int


class State(NamedTuple):
    """Everything, as few numbers as possible. ``late``: points whose requests may yet arrive,
    though nobody waits for the replies any more."""

    redis: int
    supervisors: tuple[Supervisor, ...]
    workers: tuple[Worker, ...]
    clients: tuple[Client, ...]
    left: Left
    late: tuple[int, ...] = ()
