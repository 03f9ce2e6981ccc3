"""The supervisor of one machine: makes the running workers match the desired models.

It reconciles at each wake-up, death and second, so that start, crash and reboot use one mechanism:
one class, since every step changes the same children. ``python -m workers.supervision.supervisor``.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue

from redis.exceptions import RedisError

from jobs.contract.errors import ModelUnloadedError, NotReadyError
from jobs.contract.records import DesiredModel, WorkerState, WorkerStatus
from jobs.logs import set_up_logging
from jobs.platform.awake import AwakeWhileBusy
from jobs.platform.current import current_platform
from jobs.settings import Settings, load_server_settings
from jobs.storage import names
from jobs.storage.connection import connect, is_transient, wait_for_redis
from jobs.storage.contact import RedisContact
from jobs.storage.desired_models import DesiredModels, DesiredSnapshot
from jobs.storage.fence import OwnershipLostError
from jobs.storage.store import JobStore
from jobs.upgrade.moves import upgrade
from workers.pull.process import PullProcess
from workers.supervision.claimant import Claimant
from workers.supervision.crash_policy import CrashPolicy
from workers.supervision.desired_state import DesiredState, LoadJobs
from workers.supervision.node_identity import Neighbours, identify, save
from workers.supervision.ownership import Ownership
from workers.supervision.recovery import Recovery
from workers.supervision.residency.failed_loads import note_failed_load
from workers.supervision.residency.follower import PlanFollower
from workers.supervision.residency.preload import preload
from workers.supervision.residency.residency import Residency
from workers.supervision.residency.starter import Starter
from workers.supervision.restarts import RestartPolicy
from workers.supervision.sweeper import Sweeper
from workers.supervision.wakeup import WakeupListener
from workers.supervision.watchdog import Watchdog
from workers.supervision.worker_process import Child, Reservation

_TICK_S = 1.0
_REDIS_WAIT_S = 15.0
_UNLOAD_S = 1.0

log = logging.getLogger("workers.supervision.supervisor")


class Supervisor:
    """Reconciles worker processes with the desired models, and handles their deaths."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._redis = connect(settings.effective_redis_url)
        self._desired_models = DesiredModels(self._redis)
        self._snapshot = DesiredSnapshot({}, frozenset(), {})
        self._store = JobStore(self._redis, settings)
        self._identity = identify(settings.state_dir)
        self._recovery = Recovery(self._store, settings, self._owner)
        self._children: dict[str, Child] = {}
        self._restarts = RestartPolicy()
        note_failure = partial(note_failed_load, self._redis, settings)
        self._crash_policy = CrashPolicy(
            self._desired_models,
            self._recovery,
            self._restarts,
            note_failure,
            lambda child: self._residency.may_retry(child, self._children),
        )
        self._events: SimpleQueue[Child | None] = SimpleQueue()
        self._is_stopping = False
        self._contact = RedisContact()
        self._neighbours = Neighbours()
        self._load_jobs = LoadJobs(self._store, self._desired_models)
        parts = self._recovery, self._load_jobs, self._restarts
        self._starter = Starter(*parts, self._owner, self._events.put)
        self._desired_state = DesiredState(self._desired_models, self._contact)
        self._ownership = Ownership(self._redis, self._identity)
        self._claimant = Claimant(
            settings, self._desired_models, self._ownership, self._contact, self._neighbours
        )
        self._residency = Residency(self._store, self._desired_models, settings, self._owner)
        policies = self._claimant, self._crash_policy, self._restarts, settings
        self._follower = PlanFollower(self._residency, *policies, self._start, self._guarded)
        self._statuses: dict[str, WorkerStatus] = {}
        self._watchdog = Watchdog(settings.stall_s, settings.gpu_stall_s, self._contact)
        self._awake = AwakeWhileBusy(current_platform() if settings.keep_awake else None)
        self._sweeper = Sweeper(
            self._store, self._recovery, settings, self._contact, self._load_jobs.of
        )
        self._pulls = PullProcess(self._store, settings, lambda: self._identity.uid)

    def run(self) -> None:
        """Supervise until ``stop``, then stop the workers. Raises ``NotReadyError``."""
        wait_for_redis(self._redis, _REDIS_WAIT_S)
        upgrading = partial(upgrade, self._redis, lambda: self._is_stopping)
        preloading = partial(preload, self._settings, self._desired_models)
        for step in (self._check_identity, upgrading, preloading):
            while not self._guarded(step):
                time.sleep(_TICK_S)
        WakeupListener(self._settings.effective_redis_url, lambda: self._events.put(None)).start()
        extra = {"node": self._identity.name, "uid": self._identity.uid, "pid": os.getpid()}
        log.info("supervisor is ready", extra=extra)
        while not self._is_stopping:
            self._reconcile()
            self._handle_events(min(_TICK_S, self._sweeper.seconds_to_next()))
        self._stop_workers()

    def _owner(self) -> str:
        return self._identity.owner

    def stop(self) -> None:
        self._is_stopping = True
        self._events.put(None)

    def _check_identity(self) -> None:
        """Replace a uid that another node uses. If there are others, wait before taking over."""
        namesake = self._desired_models.node(self._identity.uid)
        if namesake is not None and namesake.token not in self._identity.gone:
            log.warning("another node has this uid", extra={"uid": self._identity.uid})
            self._identity = self._identity.with_new_uid()
            save(self._identity, self._settings.state_dir)
            self._ownership.rename(self._identity)
        self._neighbours.look(self._desired_models.known_nodes(), self._identity.uid)
        if not self._neighbours.is_empty:
            self._contact.note_interruption()

    # Events.

    def _handle_events(self, timeout_s: float) -> None:
        """Wait for a wake-up or a death, then handle all that are pending."""
        try:
            event = self._events.get(timeout=timeout_s)
            while True:
                if event is not None:
                    self._handle_death(event)
                event = self._events.get_nowait()
        except Empty:
            return

    def _handle_death(self, child: Child) -> None:
        """Settle the dead worker's jobs. Retries until Redis accepts it."""
        while not self._guarded(lambda: self._settle(child)):
            time.sleep(_TICK_S / 5)
        if self._children.get(child.slug) is child:
            del self._children[child.slug]

    def _settle(self, child: Child) -> None:
        """Settle the jobs, unless another supervisor owns the model now and does so itself."""
        if self._ownership.take(child.slug):
            self._crash_policy.settle(child)
        else:
            log.warning("a dead worker's model has another owner", extra={"slug": child.slug})

    # Reconciling.

    def _reconcile(self) -> None:
        """Start desired models that do not run, stop running ones that are not desired.

        A failure in one step does not prevent the others.
        """
        if not self._guarded(self._look):
            return
        steps = (self._check_all, self._follow_plan, self._drain_undesired, self._sweep)
        for step in (*steps, self._pulls.look, self._heartbeat):
            self._guarded(step)

    def _look(self) -> None:
        """Read the desired models, and renew the ownership of our own."""
        self._snapshot = self._desired_state.look()
        self._contact.note_answer()
        self._neighbours.look(self._desired_models.known_nodes(), self._identity.uid)
        kept = self._children.keys() | self._claimant.to_restart(self._snapshot, self._children)
        for slug in self._ownership.renew(kept) & self._children.keys():
            log.warning("another supervisor owns the model now", extra={"slug": slug})
            self._children[slug].stop(_UNLOAD_S)

    def _check_all(self) -> None:
        statuses = self._statuses = self._desired_models.statuses(list(self._children))
        self._awake.note(is_busy=self._pulls.is_busy or any(s.running for s in statuses.values()))
        self._watchdog.look(set(self._children), statuses)
        for slug, child in list(self._children.items()):
            if slug not in self._snapshot.unreadable:
                self._check(child, self._snapshot.desired_models.get(slug), statuses.get(slug))
            child.enforce()

    def _check(
        self, child: Child, desired: DesiredModel | None, status: WorkerStatus | None
    ) -> None:
        if desired is None or desired.uid != child.desired.uid:
            self._stop_undesired(child, status)
        elif desired.is_parked:
            child.stop(self._settings.grace_s)
        elif (reason := self._watchdog.judge(child, status)) is not None:
            child.kill(reason)
        else:
            self._crash_policy.note_ready(desired, status)

    def _follow_plan(self) -> None:
        """Start, park and close models as their demand and the machine's memory ask for."""
        self._follower.follow(
            self._snapshot, self._children, self._statuses, is_alone=self._neighbours.is_empty
        )

    def _start(self, slug: str, desired: DesiredModel, reservation: Reservation) -> None:
        child = self._starter.start(slug, desired, reservation)
        if child is not None:
            self._children[slug] = child

    def _stop_undesired(self, child: Child, status: WorkerStatus | None) -> None:
        """Stop a worker. A ready one first gets a second to take its unload job."""
        is_ready = status is not None and status.state in (WorkerState.READY, WorkerState.STOPPING)
        if is_ready:
            child.stop(self._settings.grace_s, after_s=_UNLOAD_S)
        else:
            child.stop(0.5)

    def _drain_undesired(self) -> None:
        """End the jobs of models that are not desired and do not run."""
        desired = set(self._snapshot.desired_models)
        undesired = self._store.slugs() - desired - self._snapshot.unreadable
        self._restarts.keep_only(desired | set(self._children))
        for slug in self._claimant.take(undesired - set(self._children)):
            self._guarded(partial(self._drain, slug))

    def _drain(self, slug: str) -> None:
        unloaded = ModelUnloadedError("the model is not loaded")
        self._recovery.settle_jobs_of(slug, None, unloaded, has_crashed=False)
        self._crash_policy.drain(slug, unloaded)
        self._ownership.release(slug)

    def _sweep(self) -> None:
        unloads = {s: names.unload_job_id(c.desired.uid) for s, c in self._children.items()}
        self._sweeper.sweep(dict.fromkeys(self._ownership.held) | unloads)

    def _heartbeat(self) -> None:
        crashes = self._restarts.totals
        status = self._residency.node_status(self._identity, self._children, crashes)
        self._desired_models.heartbeat_node(status, is_forgetting=self._contact.is_stable)

    # Shutdown.

    def _stop_workers(self) -> None:
        """Stop all workers with SIGTERM, and with SIGKILL after the grace period."""
        for child in self._children.values():
            child.stop(self._settings.grace_s + 0.5)
        while self._children:
            self._handle_events(0.1)
            for child in self._children.values():
                child.enforce()
        self._guarded(self._pulls.stop)
        self._awake.release()
        self._guarded(lambda: self._ownership.renew(set()))
        self._guarded(lambda: self._desired_models.forget_node(self._identity.uid))
        log.info("supervisor has stopped")

    def _guarded(self, action: Callable[[], object]) -> bool:
        """Run ``action`` and log its errors. False if it should be retried."""
        try:
            action()
        except RedisError as error:
            if is_transient(error):
                log.warning("redis unavailable", extra={"error": str(error)})
                return self._is_stopping
            log.exception("supervision step failed in redis")
        except OwnershipLostError:
            log.warning("model is no longer owned, will retry")
            return False
        except Exception:
            log.exception("supervision step failed")
        return True


def main() -> int:
    """Supervise until a stop signal. Returns the exit status."""
    settings = load_server_settings()
    set_up_logging(settings.log_level)
    supervisor = Supervisor(settings)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: supervisor.stop())
    try:
        supervisor.run()
    except NotReadyError as error:
        print(f"mgs: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
