"""Settles the jobs of dead workers: each returns to its queue or gets its terminal event.

Every step may be repeated, so that another supervisor can complete it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from jobs.contract.errors import (
    ContractError,
    ErrorInfo,
    JobCancelledError,
    JobError,
    JobNotFoundError,
)
from jobs.contract.events import Event, EventKind
from jobs.contract.records import DeathCount, JobRecord, JobStatus
from jobs.contract.requests import GenerateRequest, Task
from jobs.settings import Settings
from jobs.storage import names
from jobs.storage.connection import is_transient
from jobs.storage.event_log import last_event_id
from jobs.storage.fence import Fence, OwnershipLostError
from jobs.storage.store import JobStore
from workers.rq_bridge.rq_cleanup import RqCleanup
from workers.supervision.blame import find_suspects

# A job that is suspected of this many is not retried. A GPU may fail for reasons of its own.
_LIMITS: dict[DeathCount, int] = {"deaths": 2, "device_losses": 5}
MAX_DEATHS = _LIMITS["deaths"]
_END_TRIES = 20

log = logging.getLogger(__name__)


class Recovery:
    """Changes job records and RQ's records from outside of the workers.

    Only the supervisor that owns a model may call it for that model. Each step checks that
    ``owner()`` holds the model's lock ("": no check) and raises ``OwnershipLostError`` otherwise.
    """

    def __init__(
        self, store: JobStore, settings: Settings, owner: Callable[[], str] = lambda: ""
    ) -> None:
        self._store = store
        self._redis = store.redis
        self._owner = owner
        self._rq = RqCleanup(store, settings)

    def suspects(self, slug: str, workers: Iterable[str]) -> set[str]:
        """Ids of the jobs that may have killed those workers. Call it once per death."""
        return find_suspects(self._redis, [record for _, record in self._held(slug, set(workers))])

    def settle_jobs_of(
        self,
        slug: str,
        workers: Iterable[str] | None,
        error: JobError,
        *,
        has_crashed: bool,
        suspects: Collection[str] = (),
        counted_as: DeathCount = "deaths",
    ) -> None:
        """Settle all jobs that the dead ``workers`` of ``slug`` held. Waiting jobs stay queued.

        ``workers`` ``None`` means all workers that the model ever had; none may be alive. After a
        crash a job continues in the next worker, unless it opted out or was among the ``suspects``
        of too many deaths, counted in ``counted_as``. Then it fails with ``error``.
        """
        dead = None if workers is None else set(workers)
        dead_names = sorted(self._known(slug) if dead is None else dead)
        self._store.stop_takes(slug, dead_names, self._owner())
        # Each goes to the front of its queue: in the end the oldest is first, suspects are last.
        held = sorted(self._held(slug, dead), key=lambda it: _return_order(it[1], suspects))
        for worker, record in held:
            is_suspect = record.job_id in suspects
            with self._one_job(record.job_id, claim=(slug, worker)):
                self._settle_held(
                    worker,
                    record,
                    error,
                    has_crashed=has_crashed,
                    counted_as=counted_as if is_suspect else None,
                )
        for worker in self._rq.registered(slug) if dead is None else dead:
            self._rq.forget(slug, worker)
        if dead is None:
            self._store.drop_unreadable_claims(slug)
        self._store.return_strays(slug)

    def drain(self, slug: str, error: JobError, is_desired: Callable[[], bool]) -> bool:
        """End the model's waiting jobs unless it ``is_desired``. True if nothing of it is left.

        The jobs are listed before that check. A model becomes desired before its load job is
        queued, so the list cannot contain the load job of a newer model.
        """
        self._store.return_strays(slug)
        waiting = self.waiting(slug)
        if is_desired():
            return False
        self.end_waiting(waiting, error, self._fence(slug))
        return self._store.retire(slug)

    def waiting(self, slug: str) -> list[str]:
        """Ids of the jobs on the model's queues."""
        found: list[bytes] = []
        for queue_name in names.queues_of(slug):
            found += self._redis.lrange(self._store.queue(queue_name).key, 0, -1)
        return [job_id.decode(errors="replace") for job_id in found]

    def end_waiting(
        self, job_ids: Iterable[str], error: JobError, fence: Fence | None = None
    ) -> None:
        """End those of our jobs that no worker has opened, and remove them from their queues."""
        for job_id in job_ids:
            with self._one_job(job_id):
                self._end(job_id, error, fence, only_if=JobStatus.QUEUED)

    def end_all_waiting(self, slug: str, error: JobError, *, spares_batch: bool = False) -> None:
        """End all jobs that wait for the model now; with ``spares_batch`` the interactive ones."""
        ids = self.waiting(slug)
        if spares_batch:
            ids = [one.job_id for one in self._store.records(ids) if one.job_class != "batch"]
        self.end_waiting(ids, error, self._fence(slug))

    def has_batch_jobs(self, slug: str) -> bool:
        """Whether jobs of the class batch wait for the model."""
        records = self._store.records(self.waiting(slug))
        return any(record.job_class == "batch" for record in records)

    def _fence(self, slug: str) -> Fence:
        return Fence(slug, self._owner())

    def _held(self, slug: str, workers: set[str] | None) -> list[tuple[str, JobRecord]]:
        """(worker, job) of dead workers' claims on unfinished jobs. Drops their other claims."""
        found = []
        for worker, job_id in self._store.claims(slug):
            if workers is not None and worker not in workers:
                continue
            record = self._record(job_id)
            if record is not None and not record.status.is_terminal:
                found.append((worker, record))
                continue
            with self._one_job(job_id, claim=(slug, worker)):
                if record is not None:
                    self._redis.lrem(self._store.lists_of(record)[1], 0, job_id)
                    self._rq.close(record)
                self._store.drop_claim(slug, worker, job_id, self._owner())
        return found

    @contextmanager
    def _one_job(self, job_id: str, claim: tuple[str, str] | None = None) -> Iterator[None]:
        """Log errors of one job, so that others are settled; drop the ``claim`` (slug, worker).

        Raises transient errors of Redis and ``OwnershipLostError``.
        """
        try:
            yield
            return
        except RedisError as error:
            if is_transient(error):
                raise
            log.error("job cannot be settled", extra={"job": job_id, "error": str(error)})
        except OwnershipLostError:
            raise
        except Exception:
            log.exception("job cannot be settled", extra={"job": job_id})
        if claim is not None:
            slug, worker = claim
            self._store.drop_claim(slug, worker, job_id, self._owner())

    def _settle_held(
        self,
        worker: str,
        record: JobRecord,
        error: JobError,
        *,
        has_crashed: bool,
        counted_as: DeathCount | None,
    ) -> None:
        if record.status is JobStatus.QUEUED:
            is_returned = True  # taken but not opened: it cannot have caused the death
        elif has_crashed:
            is_returned = self._may_continue(record, counted_as)
        else:
            is_returned = record.task is Task.GENERATE and error.code == "shutting_down"
        slug, job_id, owner = names.slug_of(record.model_id), record.job_id, self._owner()
        if not is_returned and record.worker == worker:
            if self._end(job_id, error, Fence(slug, owner)):
                self._store.drop_claim(slug, worker, job_id, owner)
        elif self._store.return_to_queue(record, worker, counted_as=counted_as, owner=owner):
            log.info("job returned to its queue", extra={"job": record.job_id})

    def _may_continue(self, record: JobRecord, counted_as: DeathCount | None) -> bool:
        is_blamed = any(
            getattr(record, count) + (count == counted_as) >= limit
            for count, limit in _LIMITS.items()
        )
        if record.cancel or is_blamed or record.task is Task.UNLOAD:
            return False
        if record.task is not Task.GENERATE:
            return True
        try:
            request = self._store.request(record.job_id)
        except (JobNotFoundError, ContractError):
            return False
        return isinstance(request, GenerateRequest) and request.on_worker_loss == "resume"

    def _end(
        self,
        job_id: str,
        error: JobError,
        fence: Fence | None,
        only_if: JobStatus | None = None,
    ) -> bool:
        """Write the terminal event to the log and to RQ. True if the job has ended.

        Retries if a worker that was taken for dead writes an event at the same time.
        """
        for _ in range(_END_TRIES):
            record = self._record(job_id)
            if record is None:
                return True
            if record.status.is_terminal:
                self._leave_lists(record)
                return True
            if only_if is not None and record.status is not only_if:
                return False
            event = self._last_event(record, error)
            if self._store.writer.settle(event, self._store.lists_of(record), fence):
                log.info("job settled", extra={"job": job_id, "kind": event.kind.value})
                self._rq.end(record, event)
                return True
        log.error("job cannot be settled: its log keeps growing", extra={"job": job_id})
        return False

    def _leave_lists(self, record: JobRecord) -> None:
        """Remove an ended job from its lists, and close it in RQ."""
        for key in self._store.lists_of(record):
            if self._redis.lrem(key, 0, record.job_id):
                self._rq.close(record)

    def _last_event(self, record: JobRecord, error: JobError) -> Event:
        kind, info = EventKind.FAILED, error.to_info()
        if record.cancel:
            kind = EventKind.CANCELLED
            info = ErrorInfo(JobCancelledError.code, record.cancel)
        elif record.task is Task.UNLOAD:
            kind = EventKind.FINISHED  # the worker has ended, as requested
        seq = last_event_id(self._redis, record.job_id).seq + 1
        return Event(
            job=record.job_id,
            attempt=record.attempt,
            seq=seq,
            kind=kind,
            t=time.time(),
            error=None if kind is EventKind.FINISHED else info,
        )

    def _record(self, job_id: str) -> JobRecord | None:
        try:
            return self._store.record(job_id)
        except (JobNotFoundError, ContractError):
            return None

    def _known(self, slug: str) -> set[str]:
        """Names of the model's workers that RQ lists or that have claims."""
        return {*self._rq.registered(slug), *(worker for worker, _ in self._store.claims(slug))}


def _return_order(record: JobRecord, suspects: Collection[str]) -> tuple[bool, float]:
    return record.job_id not in suspects, -record.created_at
