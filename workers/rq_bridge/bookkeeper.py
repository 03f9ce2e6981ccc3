"""Writes RQ's records of jobs on its own thread, so that no job waits for them.

Clients see the events; ``rq info`` and dashboards see these records. A job is noted as running a
little after its start, or not at all if it ended before. After a transient error of Redis an action
is retried. After a permanent error the job's records are abandoned.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import msgspec
from redis.exceptions import RedisError
from rq.executions import Execution
from rq.utils import now

from jobs.contract.errors import JobError
from jobs.contract.events import Event, EventKind
from jobs.storage.connection import is_transient
from workers.rq_bridge.queue_consumer import QueueConsumer
from workers.rq_bridge.queued_job import QueuedJob

_RETRY_S = 0.2
_BEGIN_DELAY_S = 0.05  # a job that ends before this is never noted as running: 13 commands fewer

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _OpenJob:
    """A job that was taken. ``job`` is ``None`` if its entry in RQ is broken. ``execution`` is
    ``None`` until RQ knows that the job runs."""

    consumer: QueueConsumer
    job: QueuedJob | None = None
    execution: Execution | None = None


class Bookkeeper(threading.Thread):
    """The thread for the records of all consumers of a worker."""

    def __init__(self) -> None:
        super().__init__(name="bookkeeper", daemon=True)
        self._actions: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._open_jobs: dict[str, _OpenJob] = {}
        self._begins: deque[tuple[float, str]] = deque()  # (when due, job id); this thread's own

    def take(self, consumer: QueueConsumer, job: QueuedJob) -> None:
        """Register an admitted job. ``begin`` notes it as running."""
        job.started_at = now()
        self._open_jobs[job.id] = _OpenJob(consumer, job)

    def hold(self, consumer: QueueConsumer, job_id: str) -> None:
        """Register a claimed job that is about to be refused and has no usable entry in RQ."""
        self._open_jobs[job_id] = _OpenJob(consumer)

    def begin(self, job_id: str) -> None:
        """Note the job as running. Call it after the ``started`` event, so as not to delay that."""
        due = time.monotonic() + _BEGIN_DELAY_S
        self._actions.put(lambda: self._begins.append((due, job_id)))

    def close(self, event: Event, *, is_end: bool) -> None:
        """Close the job. ``is_end``: this worker wrote its terminal event ``event``."""
        self._actions.put(lambda: self._end(event.job, lambda: self._close(event, is_end)))

    def drop(self, job_id: str) -> None:
        """Remove all records of a job that another worker has, or that does not exist."""
        self._actions.put(lambda: self._end(job_id, lambda: self._drop(job_id)))

    def hand_back(self, job_id: str, attempt: int, on_cancelled: Callable[[str], None]) -> None:
        """Put the job on its queue again; ``on_cancelled(reason)`` must end a cancelled one."""
        self._actions.put(
            lambda: self._end(job_id, lambda: self._hand_back(job_id, attempt, on_cancelled))
        )

    def stop(self, timeout_s: float) -> bool:
        """Do the queued actions, then end. False if that took longer than ``timeout_s``."""
        self._actions.put(None)
        self.join(timeout_s)
        return not self.is_alive()

    def run(self) -> None:
        while (action := self._next_action()) is not None:
            try:
                _until_done(action)
            except Exception:
                # An error of one job must not stop the thread for all others.
                log.exception("bookkeeping failed")

    def _next_action(self) -> Callable[[], None] | None:
        """The next action; ``None`` ends the thread. A begin that is due waits while the queue has
        actions: the job's end may be among them."""
        while self._begins:
            due, job_id = self._begins[0]
            if job_id in self._open_jobs:
                try:
                    return self._actions.get(timeout=max(due - time.monotonic(), 0))
                except Empty:
                    self._begins.popleft()
                    return lambda: self._begin(job_id)
            self._begins.popleft()
        return self._actions.get()

    def _end(self, job_id: str, action: Callable[[], None]) -> None:
        """Do the last action of a job. If it fails, drop the job."""
        try:
            _until_done(action)
        except Exception:
            log.exception("RQ's records of the job cannot be closed", extra={"job": job_id})
            self._drop_broken(job_id)

    def _drop_broken(self, job_id: str) -> None:
        """Drop a job without closing it. Its records in RQ expire with the lease."""
        entry = self._open_jobs.pop(job_id, None)
        if entry is None:
            return
        executions = entry.consumer.executions
        for lost in [key for key, one in executions.items() if one.job_id == job_id]:
            del executions[lost]  # otherwise the heartbeat would renew its lease
        try:
            _until_done(lambda: entry.consumer.forget(job_id))
        except RedisError:
            log.exception("the job's claim cannot be removed", extra={"job": job_id})
            entry.consumer.in_hand.discard(job_id)

    def _begin(self, job_id: str) -> None:
        entry = self._open_jobs.get(job_id)
        if entry is not None and entry.job is not None and entry.execution is None:
            entry.execution = entry.consumer.begin(entry.job)

    def _close(self, event: Event, is_end: bool) -> None:
        is_finish = is_end and event.kind is EventKind.FINISHED
        if not is_finish:  # a job that finished before its begin needs only the finish
            self._begin(event.job)
        entry = self._open_jobs.get(event.job)
        if entry is None:
            return
        is_closed = is_end and entry.job is not None and _close_in_rq(entry, entry.job, event)
        if not is_closed:
            _close_execution(entry)
        if not (is_closed and is_finish):  # otherwise the consumer has already released it
            entry.consumer.forget(event.job)
        del self._open_jobs[event.job]

    def _hand_back(self, job_id: str, attempt: int, on_cancelled: Callable[[str], None]) -> None:
        entry = self._open_jobs.get(job_id)
        if entry is None:
            return
        _close_execution(entry)  # before another worker may begin one
        entry.execution = None
        consumer = entry.consumer
        answer = consumer.hand_back(job_id, attempt)
        if answer.cancel_reason is not None:
            return on_cancelled(answer.cancel_reason)
        if not answer.is_returned:  # another worker has it, or it has ended
            consumer.forget(job_id)
            del self._open_jobs[job_id]
            return
        consumer.note_returned()
        # From the release on the job may be taken again. Nothing may follow that could fail: it
        # would be repeated, and then concern the next attempt.
        del self._open_jobs[job_id]
        consumer.in_hand.discard(job_id)
        self._actions.put(lambda: _until_done(consumer.wake))

    def _drop(self, job_id: str) -> None:
        self._begin(job_id)
        entry = self._open_jobs.get(job_id)
        if entry is not None:
            _close_execution(entry)
            entry.consumer.forget(job_id)
            del self._open_jobs[job_id]


def _until_done(action: Callable[[], None]) -> None:
    """Repeat ``action`` while Redis raises transient errors. Raises other errors."""
    while True:
        try:
            return action()
        except RedisError as error:
            if not is_transient(error):
                raise
            log.warning("bookkeeping failed, will retry", extra={"error": str(error)})
            time.sleep(_RETRY_S)


def _close_execution(entry: _OpenJob) -> None:
    if entry.job is not None and entry.execution is not None:
        entry.consumer.close_lost(entry.job, entry.execution)


def _close_in_rq(entry: _OpenJob, job: QueuedJob, event: Event) -> bool:
    """False when RQ fails because its hash of the job is broken."""
    try:
        _close(entry, job, event)
    except RedisError:
        raise
    except Exception:
        log.exception("RQ cannot close the job", extra={"job": job.id})
        return False
    return True


def _close(entry: _OpenJob, job: QueuedJob, event: Event) -> None:
    facts = _facts(event)
    job.meta.update(facts)
    if event.kind is EventKind.FINISHED:
        return entry.consumer.close_finished(job, entry.execution, facts)
    job.save_meta()
    assert entry.execution is not None
    assert event.error is not None
    error = JobError.from_info(event.error)
    if event.kind is EventKind.CANCELLED:
        return entry.consumer.close_stopped(job, entry.execution, error)
    return entry.consumer.close_failed(job, entry.execution, error)


def _facts(event: Event) -> dict[str, Any]:
    """Facts of an ended job for dashboards, without nesting."""
    facts: dict[str, Any] = {"phase": event.kind.value}
    for part in (event.usage, event.timings):
        if part is not None:
            facts.update(msgspec.to_builtins(part))
    if event.num_tokens is not None:
        facts["num_tokens"] = event.num_tokens
    if event.error is not None:
        facts["error"] = event.error.code
    return facts
