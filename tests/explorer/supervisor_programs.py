"""Programs of supervisors: each public method calls the product as its own callers do."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

from redis.exceptions import RedisError

from jobs.contract.records import DesiredModel
from jobs.platform.awake import AwakeWhileBusy
from jobs.storage import names
from jobs.storage.contact import RedisContact
from jobs.storage.desired_models import DesiredModels, DesiredSnapshot
from jobs.storage.fence import OwnershipLostError
from tests.explorer.fixtures import Fixtures
from tests.explorer.state_fields import PERMANENT, SLUG
from workers.supervision.claimant import Claimant
from workers.supervision.crash_policy import CrashPolicy
from workers.supervision.desired_state import DesiredState, LoadJobs
from workers.supervision.node_identity import Neighbours, NodeIdentity
from workers.supervision.ownership import Ownership
from workers.supervision.recovery import Recovery
from workers.supervision.residency.follower import PlanFollower
from workers.supervision.residency.residency import Residency
from workers.supervision.residency.starter import Starter
from workers.supervision.restarts import RestartPolicy
from workers.supervision.supervisor import Supervisor
from workers.supervision.sweeper import Sweeper
from workers.supervision.watchdog import Watchdog

_TICK_ERRORS = (RedisError, OwnershipLostError)
"""Errors that end a tick; the next tick continues its work."""


class SupervisorRef(NamedTuple):
    """A supervisor by its index. ``predecessors``: the earlier ones of its node. ``is_owner``: by
    its own records, it owns the model."""

    node: int
    predecessors: tuple[int, ...] = ()
    is_owner: bool = False


class WorkerRef(NamedTuple):
    """The worker of a supervisor: its token, and the desired model and load job that it was started
    for."""

    token: str
    desired: str = PERMANENT.uid
    load_job: str = PERMANENT.load_job


class TickResult(NamedTuple):
    """Result of a tick. ``started``: desired model and load job of a started worker.

    ``is_stopping``: the worker is to stop; ``is_closed``: it takes no further job. ``is_settled``:
    its worker's death is settled; ``suspects``: found before that.
    """

    is_owner: bool
    started: tuple[str, str] | None = None
    is_stopping: bool = False
    is_closed: bool = False
    is_settled: bool = False
    suspects: frozenset[str] | None = None


class SupervisorPrograms:
    """See ``Fixtures``."""

    def __init__(self, fixtures: Fixtures) -> None:
        self._fixtures = fixtures

    # Worlds in which one model is desired all the time.

    def take_over(self, ref: SupervisorRef) -> TickResult:
        """A tick of a supervisor that does not run the model: it claims the model, if it may."""
        one = self._supervisor(ref)
        try:
            if not one._claimant.take(one._claimant.loadable({SLUG: PERMANENT})):
                return TickResult(ref.is_owner)
            one._starter._settle_leftover(SLUG)
        except _TICK_ERRORS:
            return TickResult(ref.is_owner)
        return TickResult(ref.is_owner, started=(PERMANENT.uid, PERMANENT.load_job))

    def renew(self, ref: SupervisorRef) -> TickResult:
        """A tick of a supervisor that runs the model: it renews its lock."""
        one = self._supervisor(ref)
        try:
            return TickResult(ref.is_owner, is_stopping=bool(one._ownership.renew({SLUG})))
        except RedisError:
            return TickResult(ref.is_owner)

    # Worlds with loads and unloads.

    def start(self, ref: SupervisorRef, number: int) -> TickResult:
        """Read the state, and start the desired model if it does not run, as worker ``number``.

        A parked model is started as well: the moves ask for that when a job waits.
        """
        return self._tick(ref, None, _start_missing)

    # Worlds in which models are parked.

    def park(self, ref: SupervisorRef, worker_ref: WorkerRef, is_closed: bool) -> TickResult:
        """Park an idle model, or a closed one whose running jobs have ended."""
        return self._tick(ref, worker_ref, lambda one: _park(one, is_closed=is_closed))

    def shut(self, ref: SupervisorRef, worker_ref: WorkerRef) -> TickResult:
        """Close a busy model: its worker takes no further job."""
        return self._tick(ref, worker_ref, lambda one: one._residency.close(one._children[SLUG]))

    def drain(self, ref: SupervisorRef) -> TickResult:
        """Read the state, and end the jobs of a model that is neither desired nor running."""
        return self._tick(ref, None, lambda one: one._drain_undesired())

    def check(self, ref: SupervisorRef, worker_ref: WorkerRef) -> TickResult:
        """Read the state, and stop the worker if its model is not desired or has another owner."""
        return self._tick(ref, worker_ref, lambda one: one._check_all())

    # All worlds.

    def sweep(self, ref: SupervisorRef, worker_ref: WorkerRef | None) -> TickResult:
        """End jobs past their queue time-out, and stale loads and unloads."""
        one = self._supervisor(ref)
        if worker_ref is not None:
            one._children[SLUG] = _child(worker_ref)
        one._sweeper._overdue._queue_timeout_s = -1.0  # all are overdue
        one._sweeper._fold_at = math.inf
        with suppress(*_TICK_ERRORS):
            one._sweep()
        return TickResult(ref.is_owner)

    def settle(
        self, ref: SupervisorRef, worker_ref: WorkerRef, code: int, suspects: frozenset[str] | None
    ) -> TickResult:
        """Settle the end of the supervisor's worker."""
        one, child = self._supervisor(ref), _child(worker_ref)
        child.exit_code = code
        child.suspects = None if suspects is None else set(suspects)
        try:
            one._settle(child)
        except _TICK_ERRORS:
            found = None if child.suspects is None else frozenset(child.suspects)
            return TickResult(SLUG in one._ownership.held, suspects=found)
        return TickResult(SLUG in one._ownership.held, is_settled=True)

    def _tick(
        self, ref: SupervisorRef, worker_ref: WorkerRef | None, act: Callable[[Any], object]
    ) -> TickResult:
        one = self._supervisor(ref)
        child = None if worker_ref is None else _child(worker_ref)
        if child is not None:
            one._children[SLUG] = child
        started: list[tuple[str, str]] = []

        def new_child(slug: str, desired: DesiredModel, *_: object) -> Any:
            started.append((desired.uid, desired.load_job))
            return SimpleNamespace(pid=0)

        place = "workers.supervision.residency.starter.Child"
        with patch(place, new_child), suppress(*_TICK_ERRORS):
            one._look()
            act(one)
        return TickResult(
            SLUG in one._ownership.held,
            next(iter(started), None),
            is_stopping=child is not None and child.is_stopping,
            is_closed=child is not None and child.is_closed,
        )

    def _supervisor(self, ref: SupervisorRef) -> Any:
        """A supervisor between two ticks, made without a state folder, threads and sockets."""
        redis, settings, store = self._fixtures.api, self._fixtures.settings, self._fixtures.store
        one: Any = Supervisor.__new__(Supervisor)
        one._settings, one._redis, one._store = settings, redis, store
        one._awake = AwakeWhileBusy(None)
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
        one._identity = self._identity(ref)
        one._ownership = Ownership(redis, one._identity)
        one._ownership._held = {SLUG} if ref.is_owner else set()
        one._claimant = Claimant(
            settings, one._desired_models, one._ownership, one._contact, one._neighbours
        )
        one._watchdog = Watchdog(settings.stall_s, settings.gpu_stall_s, one._contact)
        one._sweeper = Sweeper(store, one._recovery, settings, one._contact, one._load_jobs.of)
        one._guarded = _unguarded
        one._pulls = SimpleNamespace(is_busy=False)
        one._residency = Residency(store, one._desired_models, settings, one._owner)
        parts = one._recovery, one._load_jobs, one._restarts
        one._starter = Starter(*parts, one._owner, print)
        one._follower = PlanFollower(
            one._residency,
            one._claimant,
            one._crash_policy,
            one._restarts,
            settings,
            one._start,
            _unguarded,
        )
        return one

    def _identity(self, ref: SupervisorRef) -> NodeIdentity:
        predecessors = frozenset(f"s{other}" for other in ref.predecessors)
        uid = "n" if self._fixtures.rules.has_one_node else f"n{ref.node}"
        return NodeIdentity(uid, f"s{ref.node}", uid, predecessors)


def owner_of(node: int, *, has_one_node: bool) -> str:
    """The value of a lock that this supervisor owns."""
    return f"n|s{node}" if has_one_node else f"n{node}|s{node}"


def _unguarded(action: Callable[[], object]) -> bool:
    """A step of a tick; unlike in the product, an error ends the whole tick."""
    action()
    return True


def _start_missing(one: Any) -> None:
    for slug, desired in one._snapshot.desired_models.items():
        one._follower._start_here(slug, desired)


def _park(one: Any, *, is_closed: bool) -> None:
    child = one._children.get(SLUG)
    if child is not None:
        child.is_closed = is_closed
        one._residency.park(child, 0.0)


def _child(worker_ref: WorkerRef) -> Any:
    """A worker's process as its supervisor represents it."""
    desired = DesiredModel(
        "0", worker_ref.desired, PERMANENT.load, worker_ref.load_job, 1.0, PERMANENT.was_ready
    )
    child: Any = SimpleNamespace(
        slug=SLUG,
        desired=desired,
        token=worker_ref.token,
        worker_names=names.worker_names(SLUG, worker_ref.token),
        last_status=None,
        killed_for=None,
        exit_code=None,
        suspects=None,
        is_stopping=False,
        is_closed=False,
        pid=0,
        enforce=lambda: None,
    )

    def stop(grace_s: float, *, after_s: float = 0.0) -> None:
        child.is_stopping = True

    child.stop = stop
    return child
