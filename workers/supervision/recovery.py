"""Settles the jobs of dead workers: each returns to its queue or gets its terminal event.

Every step may be repeated, so that another supervisor can complete it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job
from rq.job import JobStatus as RqStatus
from rq.job_lifecycle import record_job_failure
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY

from jobs.contract.errors import (
    ContractError,
    ErrorInfo,
    JobCancelledError,
    JobError,
    JobNotFoundError,
)
from jobs.contract.events import Event, EventKind
from jobs.contract.records import JobRecord, JobStatus
from jobs.contract.requests import GenerateRequest, Task
from jobs.settings import Settings
from jobs.storage import names
from jobs.storage.connection import is_transient
from jobs.storage.event_log import last_event_id
from jobs.storage.fence import Fence, OwnershipLostError
from jobs.storage.store import JobStore
from workers.supervision.blame import find_suspects

MAX_DEATHS = 2  # a job that is suspected of this many is not retried
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
        self._settings = settings
        self._owner = owner

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
    ) -> None:
        """Settle all jobs that the dead ``workers`` of ``slug`` held. Waiting jobs stay queued.

        ``workers`` ``None`` means all workers that the model ever had; none may be alive. After a
        crash a job continues in the next worker, unless it opted out or was among the ``suspects``
        of too many deaths. Then it fails with ``error``.
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
                    worker, record, error, has_crashed=has_crashed, is_suspect=is_suspect
                )
        for worker in self._registered(slug) if dead is None else dead:
            self._forget_in_rq(slug, worker)
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

    def end_all_waiting(self, slug: str, error: JobError) -> None:
        """End all jobs that wait for the model now."""
        self.end_waiting(self.waiting(slug), error, self._fence(slug))

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
                    self._close_in_rq(record)
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
        is_suspect: bool,
    ) -> None:
        if record.status is JobStatus.QUEUED:
            is_returned = True  # taken but not opened: it cannot have caused the death
        elif has_crashed:
            is_returned = self._may_continue(record, is_suspect=is_suspect)
        else:
            is_returned = record.task is Task.GENERATE and error.code == "shutting_down"
        slug, job_id, owner = names.slug_of(record.model_id), record.job_id, self._owner()
        if not is_returned and record.worker == worker:
            if self._end(job_id, error, Fence(slug, owner)):
                self._store.drop_claim(slug, worker, job_id, owner)
        elif self._store.return_to_queue(record, worker, has_killed=is_suspect, owner=owner):
            log.info("job returned to its queue", extra={"job": record.job_id})

    def _close_in_rq(self, record: JobRecord) -> None:
        """Close an ended job in RQ, where it still counts as running."""
        status = {
            JobStatus.FINISHED: RqStatus.FINISHED,
            JobStatus.FAILED: RqStatus.FAILED,
            JobStatus.CANCELLED: _cancelled_in_rq(record),
        }[record.status]
        self._store.close_in_rq(record.job_id, status, self._settings.log_ttl_s)

    def _may_continue(self, record: JobRecord, *, is_suspect: bool) -> bool:
        is_blamed = record.deaths + is_suspect >= MAX_DEATHS
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
                self._end_in_rq(record, event)
                return True
        log.error("job cannot be settled: its log keeps growing", extra={"job": job_id})
        return False

    def _leave_lists(self, record: JobRecord) -> None:
        """Remove an ended job from its lists, and close it in RQ."""
        for key in self._store.lists_of(record):
            if self._redis.lrem(key, 0, record.job_id):
                self._close_in_rq(record)

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

    def _end_in_rq(self, record: JobRecord, event: Event) -> None:
        if event.kind is not EventKind.FAILED:
            is_finished = event.kind is EventKind.FINISHED
            status = RqStatus.FINISHED if is_finished else _cancelled_in_rq(record)
            self._store.close_in_rq(record.job_id, status, self._settings.log_ttl_s)
            return
        try:
            job = Job.fetch(record.job_id, self._redis, JSONSerializer)
        except NoSuchJobError:
            return
        except RedisError:
            raise
        except Exception as error:  # RQ raises many kinds of errors for a broken hash
            log.warning("RQ's hash is unreadable", extra={"job": record.job_id, "why": repr(error)})
            return self._store.close_in_rq(
                record.job_id, RqStatus.FAILED, self._settings.failure_ttl_s
            )
        assert event.error is not None
        with self._redis.pipeline() as pipe:
            record_job_failure(job, event.error.message, pipe)
            pipe.execute()

    def _record(self, job_id: str) -> JobRecord | None:
        try:
            return self._store.record(job_id)
        except (JobNotFoundError, ContractError):
            return None

    def _known(self, slug: str) -> set[str]:
        """Names of the model's workers that RQ lists or that have claims."""
        return {*self._registered(slug), *(worker for worker, _ in self._store.claims(slug))}

    def _registered(self, slug: str) -> list[str]:
        """Names of the model's workers that RQ lists."""
        keys = [WORKERS_BY_QUEUE_KEY % name for name in names.queues_of(slug)]
        found = {key.decode(errors="replace") for key in self._redis.sunion(keys)}
        return sorted(key.removeprefix(names.rq_worker_key("")) for key in found)

    def _forget_in_rq(self, slug: str, worker: str) -> None:
        """Remove a dead worker and its executions from RQ, so that ``rq info`` is correct."""
        key, executions_key = names.rq_worker_key(worker), names.rq_worker_executions_key(worker)
        executions = self._redis.smembers(executions_key)
        with self._redis.pipeline() as pipe:
            for composite in executions:
                for queue_name in names.queues_of(slug):
                    registry = StartedJobRegistry(
                        queue_name, self._redis, serializer=JSONSerializer
                    )
                    pipe.zrem(registry.key, composite)
                if (execution := self._execution(composite)) is not None:
                    pipe.delete(execution.key, names.rq_executions_key(execution.job_id))
            pipe.srem(REDIS_WORKER_KEYS, key)
            for queue_name in names.queues_of(slug):
                pipe.srem(WORKERS_BY_QUEUE_KEY % queue_name, key)
            pipe.delete(key, executions_key)
            pipe.execute()

    def _execution(self, composite: bytes) -> Execution | None:
        """The execution of a member of RQ's set, ``None`` if it is malformed."""
        try:
            return Execution.from_composite_key(composite.decode(), self._redis)
        except (UnicodeDecodeError, ValueError):
            return None


def _cancelled_in_rq(record: JobRecord) -> RqStatus:
    """RQ's status of a cancelled job: stopped if it has run, else canceled."""
    return RqStatus.STOPPED if record.attempt else RqStatus.CANCELED


def _return_order(record: JobRecord, suspects: Collection[str]) -> tuple[bool, float]:
    return record.job_id not in suspects, -record.created_at
