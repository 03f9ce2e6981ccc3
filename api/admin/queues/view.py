"""The queues of models by class, as /management/queues shows them. Synchronous."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from api.admin.queues.schema import QueueEntry
from jobs.contract.records import DesiredModel, JobClass, JobRecord, JobStatus
from jobs.contract.requests import Task
from jobs.scheduling.holds import CLASSES, Hold, Holds, class_queue
from jobs.storage import names
from jobs.storage.store import JobStore


def list_queues(store: JobStore, models: Iterable[DesiredModel]) -> list[QueueEntry]:
    """Two entries per model, in the order of the models."""
    listed = list(models)
    holds = Holds(store.redis).read([names.slug_of(one.model_id) for one in listed])
    entries: list[QueueEntry] = []
    for desired in listed:
        slug = names.slug_of(desired.model_id)
        running = Counter(record.job_class for record in running_generations(store, slug))
        entries += [_entry(store, desired, one, holds[slug, one], running[one]) for one in CLASSES]
    return entries


def running_generations(store: JobStore, slug: str) -> list[JobRecord]:
    """The generations that the model's worker holds."""
    records = store.records([job_id for _, job_id in store.claims(slug)])
    return [
        record
        for record in records
        if record.task is Task.GENERATE and record.status is JobStatus.RUNNING
    ]


def yield_running(store: JobStore, slug: str, classes: Collection[JobClass]) -> int:
    """Ask for the running generations of the classes back. Returns how many there are."""
    running = [one for one in running_generations(store, slug) if one.job_class in classes]
    for record in running:
        store.send_yield(record.worker, record.job_id)
    return len(running)


def _entry(
    store: JobStore, desired: DesiredModel, job_class: JobClass, hold: Hold, running: int
) -> QueueEntry:
    queue = store.queue(class_queue(names.slug_of(desired.model_id), job_class))
    return QueueEntry(
        model_id=desired.model_id,
        model_name=desired.load.model_name,
        job_class=job_class,
        queue=queue.name,
        waiting=store.redis.llen(queue.key),
        running=running,
        state=hold.state,
        by=hold.by or None,
        since=hold.at,
        resumed_at=hold.resumed_at,
    )
