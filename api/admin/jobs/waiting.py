"""What a job that has not started waits for."""

from __future__ import annotations

from api.admin.jobs.schema import JobWait
from jobs.contract.records import JobRecord, JobStatus, WorkerState
from jobs.storage import names
from jobs.storage.desired_models import DesiredModels
from jobs.storage.store import JobStore


def wait_of(store: JobStore, record: JobRecord) -> JobWait | None:
    """Its place and phase; ``None`` for a job that no longer waits, or that no model has."""
    if record.status is not JobStatus.QUEUED or not record.model_id:
        return None
    place = store.redis.lpos(store.queue(record.queue).key, record.job_id)
    slug = names.slug_of(record.model_id)
    status = DesiredModels(store.redis).statuses([slug]).get(slug)
    position = place + 1 if isinstance(place, int) else None
    if status is not None and status.state is WorkerState.READY:
        return JobWait(phase="queued", position=position)
    if status is not None and status.state is WorkerState.LOADING:
        return JobWait(phase="loading", position=position, fraction=status.load_fraction)
    return JobWait(phase="waiting", position=position)
