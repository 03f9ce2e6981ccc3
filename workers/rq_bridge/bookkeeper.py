"""Writes RQ's side of each job on a thread of its own: nobody waits for it, Redis may be away.

The events are what clients see; this is what ``rq info`` and dashboards see. Per job the order is
kept: begin, then close. What Redis refuses for good about one job is given up, and nobody waits for
it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
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

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _OpenJob:
    """A job that was taken. No ``job``: its entry in RQ is broken. No ``execution``: RQ does not
    know yet that it runs."""

    consumer: QueueConsumer
    job: QueuedJob | None = None
    execution: Execution | None = None


class Bookkeeper(threading.Thread):
    """One thread for both consumers of a worker."""

    def __init__(self) -> None:
        super().__init__(name="bookkeeper", daemon=True)
        self._actions: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._open_jobs: dict[str, _OpenJob] = {}

    def take(self, consumer: QueueConsumer, job: QueuedJob) -> None:
        """The job is admitted; it is noted as running when ``begin`` says so."""
        job.started_at = now()
        self._open_jobs[job.id] = _OpenJob(consumer, job)

    def hold(self, consumer: QueueConsumer, job_id: str) -> None:
        """The job is about to be refused: there is nothing of it in RQ, but we have claimed it."""
        self._open_jobs[job_id] = _OpenJob(consumer)

    def begin(self, job_id: str) -> None:
        """The job's ``started`` event is out. Not before: these books would only delay it."""
        self._actions.put(lambda: self._begin(job_id))

    def close(self, event: Event, *, is_end: bool) -> None:
        """The job's terminal event is written (``is_end``), or somebody else's was."""
        self._actions.put(lambda: self._end(event.job, lambda: self._close(event, is_end)))

    def drop(self, job_id: str) -> None:
        """The job goes on elsewhere, or never was: leave nothing of it here."""
        self._actions.put(lambda: self._end(job_id, lambda: self._drop(job_id)))

    def stop(self, timeout_s: float) -> bool:
        """Do what is queued, then end; False when it could not be done in time."""
        self._actions.put(None)
        self.join(timeout_s)
        return not self.is_alive()

    def run(self) -> None:
        while (action := self._actions.get()) is not None:
            try:
                _until_done(action)
            except Exception:
                # One odd job must not end the books of all others.
                log.exception("bookkeeping failed")

    def _end(self, job_id: str, action: Callable[[], None]) -> None:
        """Do the last that is done for a job; whatever comes of it, the entry is gone."""
        try:
            _until_done(action)
        except Exception:
            log.exception("the job's books cannot be closed", extra={"job": job_id})
            self._drop_broken(job_id)

    def _drop_broken(self, job_id: str) -> None:
        """Let go of a job; what RQ has of it lapses with its lease."""
        entry = self._open_jobs.pop(job_id, None)
        if entry is None:
            return
        executions = entry.consumer.executions
        for lost in [key for key, one in executions.items() if one.job_id == job_id]:
            del executions[lost]  # or the heartbeat would renew its lease
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
        if not is_finish:  # a finish that comes before the beginning is all that there is to note
            self._begin(event.job)
        entry = self._open_jobs.get(event.job)
        if entry is None:
            return
        is_closed = is_end and entry.job is not None and _close_in_rq(entry, entry.job, event)
        if not is_closed:
            _close_execution(entry)
        if not (is_closed and is_finish):  # else the consumer has let go already
            entry.consumer.forget(event.job)
        del self._open_jobs[event.job]

    def _drop(self, job_id: str) -> None:
        self._begin(job_id)
        entry = self._open_jobs.get(job_id)
        if entry is not None:
            _close_execution(entry)
            entry.consumer.forget(job_id)
            del self._open_jobs[job_id]


def _until_done(action: Callable[[], None]) -> None:
    """Raises what will not pass."""
    while True:
        try:
            return action()
        except RedisError as error:
            if not is_transient(error):
                raise
            log.warning("redis refuses bookkeeping, will retry", extra={"error": str(error)})
            time.sleep(_RETRY_S)


def _close_execution(entry: _OpenJob) -> None:
    if entry.job is not None and entry.execution is not None:
        entry.consumer.close_lost(entry.job, entry.execution)


def _close_in_rq(entry: _OpenJob, job: QueuedJob, event: Event) -> bool:
    """False when RQ cannot: its hash of the job is broken."""
    try:
        _close(entry, job, event)
    except RedisError:
        raise
    except Exception:
        log.exception("RQ cannot end the job", extra={"job": job.id})
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
    """The flat numbers that dashboards show of an ended job."""
    facts: dict[str, Any] = {"phase": event.kind.value}
    for part in (event.usage, event.timings):
        if part is not None:
            facts.update(msgspec.to_builtins(part))
    if event.num_tokens is not None:
        facts["num_tokens"] = event.num_tokens
    if event.error is not None:
        facts["error"] = event.error.code
    return facts
