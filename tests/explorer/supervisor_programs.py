"""What supervisors do: each public function here is a program, called as its caller calls."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

from redis.exceptions import RedisError

from jobs.contract.records import DesiredModel
from jobs.storage.contact import RedisContact
from jobs.storage.desired_models import DesiredModels, DesiredSnapshot
from jobs.storage.fence import OwnershipLostError
from tests.explorer.parts import Parts, worker_name
from tests.explorer.sights import SLUG, STANDING
from workers.supervision.claimant import Claimant
from workers.supervision.crash_policy import CrashPolicy
from workers.supervision.desired_state import DesiredState, LoadJobs
from workers.supervision.node_identity import Neighbours, NodeIdentity
from workers.supervision.ownership import Ownership
from workers.supervision.recovery import Recovery
from workers.supervision.restarts import RestartPolicy
from workers.supervision.supervisor import Supervisor
from workers.supervision.sweeper import Sweeper
from workers.supervision.watchdog import Watchdog

_BREAKS = (RedisError, OwnershipLostError)
"""What a tick ends with that another one will take up."""


class Who(NamedTuple):
    """The supervisor of that number. ``gone``: the earlier ones of its node. ``holds``: as far as
    it knows the model is its own."""

    node: int
    gone: tuple[int, ...] = ()
    holds: bool = False


class Ran(NamedTuple):
    """The worker that it runs: its token, and what it was started for."""

    token: str
    desired: str = STANDING.uid
    load_job: str = STANDING.load_job


class Ticked(NamedTuple):
    """What came of a tick. ``started``: the worker's desired model and load job. ``told``: the
    worker is to stop. ``is_settled``: of its worker's death; ``suspects`` are known until then."""

    holds: bool
    started: tuple[str, str] | None = None
    told: bool = False
    is_settled: bool = False
    suspects: frozenset[str] | None = None


class SupervisorPrograms:
    """See ``Parts``."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    # Where one model is wanted for ever.

    def take_over(self, who: Who) -> Ticked:
        """A tick of a supervisor that does not run the model: it takes it, if it may."""
        one = self._supervisor(who)
        try:
            if not one._claimant.claim({SLUG: STANDING}):
                return Ticked(who.holds)
            one._settle_leftover(SLUG)
        except _BREAKS:
            return Ticked(who.holds)
        return Ticked(who.holds, started=(STANDING.uid, STANDING.load_job))

    def renew(self, who: Who) -> Ticked:
        """A tick of a supervisor that runs the model: is it still its own?"""
        one = self._supervisor(who)
        try:
            return Ticked(who.holds, told=bool(one._ownership.renew({SLUG})))
        except RedisError:
            return Ticked(who.holds)

    # Where models are loaded and unloaded.

    def start(self, who: Who, number: int) -> Ticked:
        """Look, and start what is wanted and does not run: the ``number``-th worker of all."""
        return self._tick(who, None, lambda one: one._start_missing())

    def drain(self, who: Who) -> Ticked:
        """Look, and end what nobody wants and nobody runs."""
        return self._tick(who, None, lambda one: one._drain_undesired())

    def check(self, who: Who, ran: Ran) -> Ticked:
        """Look, and stop the worker that runs if it is not wanted, or not its own any more."""
        return self._tick(who, ran, lambda one: one._check_all())

    # Anywhere.

    def sweep(self, who: Who, ran: Ran | None) -> Ticked:
        """End what has waited for too long, and loads and unloads that are stale."""
        one = self._supervisor(who)
        if ran is not None:
            one._children[SLUG] = _child(ran)
        one._sweeper._queue_timeout_s = -1.0  # all are overdue
        one._sweeper._fold_at = math.inf
        with suppress(*_BREAKS):
            one._sweep()
        return Ticked(who.holds)

    def settle(self, who: Who, ran: Ran, code: int, suspects: frozenset[str] | None) -> Ticked:
        """The worker of the supervisor has ended."""
        one, child = self._supervisor(who), _child(ran)
        child.exit_code = code
        child.suspects = None if suspects is None else set(suspects)
        try:
            one._settle(child)
        except _BREAKS:
            found = None if child.suspects is None else frozenset(child.suspects)
            return Ticked(SLUG in one._ownership.held, suspects=found)
        return Ticked(SLUG in one._ownership.held, is_settled=True)

    def _tick(self, who: Who, ran: Ran | None, act: Callable[[Any], object]) -> Ticked:
        one = self._supervisor(who)
        child = None if ran is None else _child(ran)
        if child is not None:
            one._children[SLUG] = child
        started: list[tuple[str, str]] = []

        def new_child(slug: str, desired: DesiredModel, owner: str, on_exit: object) -> Any:
            started.append((desired.uid, desired.load_job))
            return SimpleNamespace(pid=0)

        with patch("workers.supervision.supervisor.Child", new_child), suppress(*_BREAKS):
            one._look()
            act(one)
        told = child is not None and child.is_told
        return Ticked(SLUG in one._ownership.held, next(iter(started), None), told)

    def _supervisor(self, who: Who) -> Any:
        """A supervisor between two ticks, made without a state folder, threads and sockets."""
        redis, settings, store = self._parts.api, self._parts.settings, self._parts.store
        one: Any = Supervisor.__new__(Supervisor)
        one._settings, one._redis, one._store = settings, redis, store
        one._desired_models = DesiredModels(redis)
        one._contact = RedisContact(lambda: 0.0, lambda: 0.0)
        one._neighbours = Neighbours(lambda: 0.0)
        one._desired_state = DesiredState(one._desired_models, one._contact)
        one._desired_state._mark = "mark"
        one._snapshot = DesiredSnapshot({}, frozenset(), {})
        one._recovery = Recovery(store, settings, lambda: one._identity.owner)
        one._load_jobs = LoadJobs(store, one._desired_models)
        one._children = {}
        one._restarts = RestartPolicy()
        one._crash_policy = CrashPolicy(one._desired_models, one._recovery, one._restarts)
        one._is_stopping = False
        one._identity = self._identity(who)
        one._ownership = Ownership(redis, one._identity)
        one._ownership._held = {SLUG} if who.holds else set()
        one._claimant = Claimant(
            settings, one._desired_models, one._ownership, one._contact, one._neighbours
        )
        one._watchdog = Watchdog(settings.stall_s, one._contact)
        one._sweeper = Sweeper(store, one._recovery, settings, one._contact, one._load_jobs.of)
        one._guarded = _unguarded
        one._events = SimpleNamespace(put=None)
        return one

    def _identity(self, who: Who) -> NodeIdentity:
        gone = frozenset(f"s{other}" for other in who.gone)
        uid = "n" if self._parts.has_one_node else f"n{who.node}"
        return NodeIdentity(uid, f"s{who.node}", uid, gone)


def owner_of(node: int, *, has_one_node: bool) -> str:
    """What stands in a lock that this supervisor holds."""
    return f"n|s{node}" if has_one_node else f"n{node}|s{node}"


def _unguarded(action: Callable[[], object]) -> bool:
    """A step of a tick; the first that fails ends the tick, as another one follows soon."""
    action()
    return True


def _child(ran: Ran) -> Any:
    """A worker's process as its supervisor knows it."""
    desired = DesiredModel("0", ran.desired, STANDING.load, ran.load_job, 1.0, STANDING.was_ready)
    child: Any = SimpleNamespace(
        slug=SLUG,
        desired=desired,
        token=ran.token,
        worker_names=[worker_name(ran.token, consumer) for consumer in ("gen", "ctl")],
        last_status=None,
        killed_for=None,
        exit_code=None,
        suspects=None,
        is_told=False,
        enforce=lambda: None,
    )

    def stop(grace_s: float, *, after_s: float = 0.0) -> None:
        child.is_told = True

    child.stop = stop
    return child
