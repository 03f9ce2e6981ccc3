"""Writes RQ's side of each job on a thread of its own: nobody waits for it, Redis may be away.

The events are what clients see; this is what ``rq info`` and dashboards see. Per job the order is
kept: begin, then close.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import msgspec
from redis.exceptions import RedisError
from rq.executions import Execution

from jobs.errors import JobError
from jobs.events import Event, EventKind
from workers.lane import LaneWorker
from workers.queued_job import QueuedJob

_RETRY_S = 0.2

log = logging.getLogger(__name__)


class Bookkeeper(threading.Thread):
    """One thread for both lanes of a worker."""

    def __init__(self) -> None:
        super().__init__(name="bookkeeper", daemon=True)
        self._actions: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._open: dict[str, tuple[LaneWorker, QueuedJob, Execution]] = {}
        self._lanes: dict[str, LaneWorker] = {}

    def begin(self, lane: LaneWorker, job: QueuedJob) -> None:
        """The job is admitted."""
        self._lanes[job.id] = lane
        self._actions.put(lambda: self._begin(lane, job))

    def hold(self, lane: LaneWorker, job_id: str) -> None:
        """The job is about to be refused: there is nothing of it in RQ, but we have claimed it."""
        self._lanes[job_id] = lane

    def close(self, event: Event, *, is_end: bool) -> None:
        """The job's terminal event is written (``is_end``), or somebody else's was."""
        self._actions.put(lambda: self._close(event, is_end))

    def drop(self, job_id: str) -> None:
        """The job goes on elsewhere, or never was: leave nothing of it here."""
        self._actions.put(lambda: self._drop(job_id))

    def stop(self, timeout_s: float) -> bool:
        """Do what is queued, then end; False when it could not be done in time."""
        self._actions.put(None)
        self.join(timeout_s)
        return not self.is_alive()

    def run(self) -> None:
        while (action := self._actions.get()) is not None:
            self._do(action)

    def _do(self, action: Callable[[], None]) -> None:
        while True:
            try:
                return action()
            except RedisError as error:
                log.warning("redis refuses bookkeeping, will retry", extra={"error": str(error)})
                time.sleep(_RETRY_S)
            except Exception:
                # One odd job must not end the books of all others.
                return log.exception("bookkeeping failed")

    def _begin(self, lane: LaneWorker, job: QueuedJob) -> None:
        self._open[job.id] = (lane, job, lane.begin(job))

    def _close(self, event: Event, is_end: bool) -> None:
        found = self._open.get(event.job)
        if found is not None:
            lane, job, execution = found
            if not (is_end and _close_in_rq(lane, job, execution, event)):
                lane.close_lost(job, execution)
        self._forget(event.job)

    def _drop(self, job_id: str) -> None:
        found = self._open.get(job_id)
        if found is not None:
            lane, job, execution = found
            lane.close_lost(job, execution)
        self._forget(job_id)

    def _forget(self, job_id: str) -> None:
        self._open.pop(job_id, None)
        lane = self._lanes.get(job_id)
        if lane is not None:
            lane.forget(job_id)
            del self._lanes[job_id]


def _close_in_rq(lane: LaneWorker, job: QueuedJob, execution: Execution, event: Event) -> bool:
    """False when RQ cannot: its hash of the job is broken."""
    try:
        _close(lane, job, execution, event)
    except RedisError:
        raise
    except Exception:
        log.exception("RQ cannot end the job", extra={"job": job.id})
        return False
    return True


def _close(lane: LaneWorker, job: QueuedJob, execution: Execution, event: Event) -> None:
    facts = _facts(event)
    job.meta.update(facts)
    if event.kind is EventKind.FINISHED:
        return lane.close_finished(job, execution, facts)
    job.save_meta()
    assert event.error is not None
    error = JobError.from_info(event.error)
    if event.kind is EventKind.CANCELLED:
        return lane.close_stopped(job, execution, error)
    return lane.close_failed(job, execution, error)


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
