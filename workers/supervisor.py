"""The supervisor of one machine: makes the running workers match what is wanted.

It reconciles at each ring of the bell, at each death and each second, so that loading has one
mechanism for first start, crash and reboot. ``python -m workers.supervisor``.
"""

from __future__ import annotations

import logging
import os
import platform
import secrets
import signal
import sys
import time
from queue import Empty, SimpleQueue

import msgspec
import psutil
from redis.exceptions import RedisError

from jobs import names
from jobs.connection import connect, wait_for_redis
from jobs.errors import (
    JobNotFoundError,
    ModelUnloadedError,
    NotReadyError,
    WorkerLostError,
)
from jobs.logs import set_up_logging
from jobs.records import NodeStatus, Want, WorkerState, WorkerStatus
from jobs.settings import Settings, load_settings
from jobs.store import JobStore
from jobs.submission import Submission
from jobs.wants import Wants
from workers.aftermath import Aftermath
from workers.bell import BellListener
from workers.child import Child
from workers.ownership import Ownership
from workers.restarts import RestartPolicy
from workers.sweeper import Sweeper
from workers.undertaker import Undertaker
from workers.want_keeper import WantKeeper
from workers.watchdog import Watchdog

_TICK_S = 1.0
_REDIS_WAIT_S = 15.0
_UNLOAD_S = 1.0

log = logging.getLogger("workers.supervisor")


class Supervisor:
    """Children by slug, and the rule of what to do about each want and each death."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._redis = connect(settings.effective_redis_url)
        self._wants = Wants(self._redis)
        self._keeper = WantKeeper(self._wants)
        self._store = JobStore(self._redis, settings)
        self._undertaker = Undertaker(self._store, settings)
        self._children: dict[str, Child] = {}
        self._restarts = RestartPolicy()
        self._aftermath = Aftermath(self._wants, self._undertaker, self._restarts)
        self._events: SimpleQueue[Child | None] = SimpleQueue()
        self._is_stopping = False
        self._node = platform.node()
        self._ownership = Ownership(self._redis, self._node)
        self._watchdog = Watchdog(settings.stall_s)
        self._sweeper = Sweeper(self._store, self._undertaker, settings)

    def run(self) -> None:
        """Supervise until ``stop``; then take the workers down."""
        wait_for_redis(self._redis, _REDIS_WAIT_S)
        BellListener(self._settings.effective_redis_url, lambda: self._events.put(None)).start()
        log.info("supervisor is ready", extra={"node": self._node, "pid": os.getpid()})
        while not self._is_stopping:
            self._guarded(self._reconcile)
            self._handle_events(min(_TICK_S, self._sweeper.seconds_to_next()))
        self._take_down()

    def stop(self) -> None:
        self._is_stopping = True
        self._events.put(None)

    # Events.

    def _handle_events(self, timeout_s: float) -> None:
        """Wait for a ring or a death, then handle all that has come."""
        try:
            event = self._events.get(timeout=timeout_s)
            while True:
                if event is not None:
                    self._handle_death(event)
                event = self._events.get_nowait()
        except Empty:
            return

    def _handle_death(self, child: Child) -> None:
        """Settle the dead worker's jobs; until Redis takes it, the child stays on our list."""
        while not self._guarded(lambda: self._aftermath.settle(child)):
            time.sleep(_TICK_S / 5)
        if self._children.get(child.slug) is child:
            del self._children[child.slug]

    # Reconciling.

    def _reconcile(self) -> None:
        """Start what is wanted and not running, stop what runs and is not wanted."""
        wants = self._keeper.look()
        statuses = self._wants.statuses(list(self._children))
        self._watchdog.look()
        for slug, child in list(self._children.items()):
            self._check(child, wants.get(slug), statuses.get(slug))
        for slug, want in wants.items():
            is_due = slug not in self._children and self._restarts.may_start(slug)
            if is_due and self._ownership.take(slug):
                self._start(slug, want)
        self._drain_unwanted(wants)
        self._sweeper.sweep(self._children)
        self._beat()

    def _check(self, child: Child, want: Want | None, status: WorkerStatus | None) -> None:
        if want is None or want.uid != child.want.uid:
            self._stop_unwanted(child, status)
        elif (reason := self._watchdog.judge(child, status)) is not None:
            child.kill(reason)
        else:
            self._aftermath.note_ready(want, status)
        child.enforce()

    def _start(self, slug: str, want: Want) -> None:
        self._bury_leftover(slug)
        want = self._with_load_job(slug, want)
        self._children[slug] = Child(slug, want, self._events.put)
        log.info("worker started", extra={"slug": slug, "pid": self._children[slug].pid})

    def _bury_leftover(self, slug: str) -> None:
        """Settle what a worker of an earlier supervisor left; its lifeline has ended it."""
        status = self._wants.statuses([slug]).get(slug)
        known = self._redis.smembers(f"rq:workers:{names.generation_queue(slug)}")
        known |= self._redis.smembers(f"rq:workers:{names.control_queue(slug)}")
        workers = {key.decode().removeprefix("rq:worker:") for key in known}
        if status is not None:
            workers.update(status.names)
        lost = WorkerLostError("the worker of the model died with its supervisor")
        self._undertaker.bury(slug, workers, lost, has_crashed=True)

    def _with_load_job(self, slug: str, want: Want) -> Want:
        """The want with a load job that waits in its queue: the first one, or a new one."""
        if self._has_ended(want.load_job):
            renewed = msgspec.structs.replace(want, load_job=f"load-{secrets.token_hex(16)}")
            if not self._wants.swap(slug, want, renewed):
                return want  # it has changed under us; the next tick sees
            want = renewed
        # Whoever wrote the want submits its load job too; the id makes it one.
        self._store.submit(
            Submission(
                job_id=want.load_job,
                model_id=want.model_id,
                request=want.load,
                facts={"model": want.load.model_name},
                is_background=True,
                is_first=True,
            )
        )
        return want

    def _has_ended(self, job_id: str) -> bool:
        try:
            return self._store.record(job_id).status.is_terminal
        except JobNotFoundError:
            return False

    def _stop_unwanted(self, child: Child, status: WorkerStatus | None) -> None:
        """A ready worker gets a second to take its unload job; one that loads cannot see it."""
        is_ready = status is not None and status.state in (WorkerState.READY, WorkerState.STOPPING)
        if is_ready:
            child.stop(self._settings.grace_s, after_s=_UNLOAD_S)
        else:
            child.stop(0.5)

    def _drain_unwanted(self, wants: dict[str, Want]) -> None:
        """End jobs on queues of models that nobody wants and nobody runs."""
        queues = {
            key.decode().removeprefix("rq:queue:") for key in self._redis.smembers("rq:queues")
        }
        slugs = {name[8:] for name in queues if name.startswith(("mgs-gen-", "mgs-ctl-"))}
        for slug in slugs - set(wants) - set(self._children):
            self._aftermath.drain(slug, ModelUnloadedError("the model is not loaded"))

    def _beat(self) -> None:
        memory, crashes = psutil.virtual_memory().total, self._restarts.totals
        status = NodeStatus(self._node, os.getpid(), memory, len(self._children), crashes)
        self._wants.beat_node(status)
        for slug in self._ownership.renew(set(self._children)):
            log.warning("another supervisor runs the model by now", extra={"slug": slug})
            self._children[slug].stop(_UNLOAD_S)

    # The end.

    def _take_down(self) -> None:
        """End all workers: politely within the grace period, then firmly."""
        for child in self._children.values():
            child.stop(self._settings.grace_s + 0.5)
        while self._children:
            self._handle_events(0.1)
            for child in self._children.values():
                child.enforce()
        self._guarded(lambda: self._ownership.renew(set()))
        self._guarded(lambda: self._wants.forget_node(self._node))
        log.info("supervisor has stopped")

    def _guarded(self, action: object) -> bool:
        """Run ``action``; False when Redis was away. Anything else is logged, and survived."""
        try:
            action()  # type: ignore[operator]
        except RedisError as error:
            log.warning("redis away", extra={"error": str(error)})
            return self._is_stopping
        except Exception:
            log.exception("supervision step failed")
        return True


def main() -> int:
    """Supervise until a signal says otherwise."""
    settings = load_settings()
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
