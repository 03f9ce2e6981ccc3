"""What jobs that have not started wait for, and their places in the queues."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from redis.exceptions import RedisError
from starlette.responses import Response

from api.admin.jobs.schema import JobQueue, JobWait
from api.execution.services import Services
from api.execution.submissions import NO_HEADERS, accepted
from jobs.contract.errors import JobError
from jobs.contract.records import JobRecord, JobStatus, WorkerState, WorkerStatus
from jobs.contract.requests import Task
from jobs.scheduling.holds import Holds
from jobs.scheduling.waiting_order import WaitingOrder
from jobs.storage import names
from jobs.storage.desired_models import DesiredModels
from jobs.storage.store import JobStore


class WaitingView:
    """The waits of several jobs: each queue and each heartbeat is read once. Synchronous."""

    def __init__(self, store: JobStore) -> None:
        self._order = WaitingOrder(store)
        self._holds = Holds(store.redis)
        self._desired_models = DesiredModels(store.redis)
        self._places = cache(self._order.places)
        self._status = cache(self._read_status)

    def wait_of(self, record: JobRecord) -> JobWait | None:
        """Its place and phase; ``None`` for a job that no longer waits, or that no model has."""
        if record.status is not JobStatus.QUEUED or not record.model_id:
            return None
        position = self._position(record)
        status = self._status(names.slug_of(record.model_id))
        if status is not None and status.state is WorkerState.READY:
            return JobWait(phase="queued", position=position)
        if status is not None and status.state is WorkerState.LOADING:
            return JobWait(phase="loading", position=position, fraction=status.load_fraction)
        return JobWait(phase="waiting", position=position)

    def queue_of(self, record: JobRecord) -> JobQueue | None:
        """The order of a generation, with its place while it waits; ``None`` for other jobs."""
        if record.task is not Task.GENERATE:
            return None
        queue = JobQueue(job_class=record.job_class, priority=record.priority)
        position = self._position(record) if record.status is JobStatus.QUEUED else None
        if position is None:
            return queue
        start_s = self._estimate(record, position - 1)
        places = {"position": position, "ahead": position - 1, "estimated_start_s": start_s}
        return queue.model_copy(update=places)

    def _position(self, record: JobRecord) -> int | None:
        return self._places(record.queue).get(record.job_id)

    def _estimate(self, record: JobRecord, ahead: int) -> float | None:
        slug = names.slug_of(record.model_id)
        status = self._status(slug)
        per_s = status.starts_per_s.get(record.job_class) if status else None
        if not per_s or self._holds.read([slug])[slug, record.job_class].state == "hold":
            return None
        return round(ahead / per_s, 1)

    def _read_status(self, slug: str) -> WorkerStatus | None:
        return self._desired_models.statuses([slug]).get(slug)


async def accepted_job(services: Services, job_id: str) -> Response:
    """202 for a job that was submitted, with its place among others."""
    return accepted(job_id, await place_headers(services, job_id))


async def place_headers(services: Services, job_id: str) -> Mapping[str, str]:
    """The place of a job that was submitted, for the headers of the answer.

    None if that cannot be read: the job is accepted all the same.
    """
    try:
        return await services.runner.in_thread(_place, services.store, job_id)
    except (RedisError, JobError):
        return NO_HEADERS


def _place(store: JobStore, job_id: str) -> Mapping[str, str]:
    """Headers: the place, and in how many seconds the job may start, if that is known."""
    queue = WaitingView(store).queue_of(store.record(job_id))
    if queue is None or queue.position is None:
        return NO_HEADERS
    headers = {"X-Queue-Position": str(queue.position)}
    if queue.estimated_start_s is not None:
        headers["X-Queue-Wait"] = f"{queue.estimated_start_s:g}"
    return headers
