"""Settles what a worker left: each of its jobs goes back to its queue or gets its end, never
neither. Every step may be repeated, so that an undertaker that dies has a successor."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job
from rq.job import JobStatus as RqStatus
from rq.job_lifecycle import record_job_failure
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY

from jobs import names
from jobs.errors import ContractError, ErrorInfo, JobCancelledError, JobError, JobNotFoundError
from jobs.event_log import last_event_id
from jobs.events import Event, EventKind
from jobs.records import JobRecord, JobStatus
from jobs.requests import GenerateRequest, Task
from jobs.settings import Settings
from jobs.store import JobStore
from workers.suspects import find_suspects

MAX_DEATHS = 2  # a job that is suspected of so many is not tried again

log = logging.getLogger(__name__)


class Undertaker:
    """Works on the records of jobs and on RQ's, from outside of any worker."""

    def __init__(self, store: JobStore, settings: Settings) -> None:
        self._store = store
        self._redis = store.redis
        self._settings = settings

    def bury(
        self, slug: str, workers: Iterable[str], error: JobError, *, has_crashed: bool
    ) -> None:
        """Settle all that the dead ``workers`` of ``slug`` held; the queue itself stays.

        After a crash a job goes on in the next worker, unless it opted out or is suspected of too
        many deaths: then ``error`` is its end.
        """
        workers = list(workers)
        in_hand = self._in_hand(workers)
        suspects: set[str] = find_suspects(self._redis, in_hand) if has_crashed else set()
        # Each goes to the front of its queue: in the end the oldest of the others is the first.
        for record in sorted(in_hand, key=lambda r: (r.job_id not in suspects, -r.created_at)):
            is_suspect = record.job_id in suspects
            self._settle_held(record, error, has_crashed=has_crashed, is_suspect=is_suspect)
        for worker in workers:
            self._forget_in_rq(slug, worker)
            self._redis.delete(names.claim_key(worker))
        for queue_name in names.queues_of(slug):
            self._return_strays(queue_name)

    def waiting(self, slug: str) -> list[str]:
        """Ids of the jobs on the model's queues, and of those on their way to a dead worker."""
        found: list[bytes] = []
        for queue_name in names.queues_of(slug):
            self._return_strays(queue_name)
            found += self._redis.lrange(self._store.queue(queue_name).key, 0, -1)
        return [job_id.decode() for job_id in found]

    def end_waiting(self, slug: str, job_ids: Iterable[str], error: JobError) -> None:
        """End those jobs: nobody will take them off the model's queues."""
        for job_id in job_ids:
            self._end(job_id, error)
            for queue_name in names.queues_of(slug):
                self._redis.lrem(self._store.queue(queue_name).key, 0, job_id)

    def _in_hand(self, workers: Iterable[str]) -> list[JobRecord]:
        """Jobs that the dead workers did not end; those that they did are closed in RQ."""
        found = []
        for worker in workers:
            for job_id in self._redis.smembers(names.claim_key(worker)):
                record = self._record(job_id.decode())
                if record is not None and record.status.is_terminal:
                    self._close_in_rq(record)
                elif record is not None and record.worker == worker:
                    # Another's: an undertaker that did not come to the end has returned it.
                    found.append(record)
        return found

    def _settle_held(
        self, record: JobRecord, error: JobError, *, has_crashed: bool, is_suspect: bool
    ) -> None:
        if has_crashed and self._may_go_on(record, is_suspect=is_suspect):
            self._return(record, has_killed=is_suspect)
        elif not has_crashed and record.task is Task.GENERATE and error.code == "shutting_down":
            self._return(record, has_killed=False)
        else:
            self._end(record.job_id, error)

    def _close_in_rq(self, record: JobRecord) -> None:
        """What the dead worker did not come to: its job has ended, RQ thinks that it runs."""
        status = {
            JobStatus.FINISHED: RqStatus.FINISHED,
            JobStatus.FAILED: RqStatus.FAILED,
            JobStatus.CANCELLED: RqStatus.STOPPED,
        }[record.status]
        self._store.close_in_rq(record.job_id, status, self._settings.log_ttl_s)

    def _may_go_on(self, record: JobRecord, *, is_suspect: bool) -> bool:
        is_convicted = record.deaths + is_suspect >= MAX_DEATHS
        if record.cancel or is_convicted or record.task is Task.UNLOAD:
            return False
        if record.task is not Task.GENERATE:
            return True
        try:
            request = self._store.request(record.job_id)
        except (JobNotFoundError, ContractError):
            return False
        return isinstance(request, GenerateRequest) and request.on_worker_loss == "resume"

    def _return(self, record: JobRecord, *, has_killed: bool) -> None:
        if self._store.return_to_queue(record, has_killed=has_killed):
            log.info("job returned to its queue", extra={"job": record.job_id})
            self._redis.hset(Job.key_for(record.job_id), "status", RqStatus.QUEUED.value)

    def _end(self, job_id: str, error: JobError) -> None:
        """The job's terminal event, in our log and in RQ's records."""
        record = self._record(job_id)
        if record is None or record.status.is_terminal:
            return
        event = self._last_event(record, error)
        if self._store.writer.settle(event):
            log.info("job settled", extra={"job": job_id, "kind": event.kind.value})
            self._end_in_rq(record, event)

    def _last_event(self, record: JobRecord, error: JobError) -> Event:
        kind, info = EventKind.FAILED, error.to_info()
        if record.cancel:
            kind = EventKind.CANCELLED
            info = ErrorInfo(JobCancelledError.code, record.cancel)
        elif record.task is Task.UNLOAD:
            kind = EventKind.FINISHED  # the process is gone: that is what was asked for
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
            status = RqStatus.FINISHED if event.kind is EventKind.FINISHED else RqStatus.CANCELED
            self._store.close_in_rq(record.job_id, status, self._settings.log_ttl_s)
            return
        try:
            job = Job.fetch(record.job_id, self._redis, JSONSerializer)
        except NoSuchJobError:
            return
        assert event.error is not None
        with self._redis.pipeline() as pipe:
            record_job_failure(job, event.error.message, pipe)
            pipe.execute()

    def _return_strays(self, queue_name: str) -> None:
        """What was moved out of the queue for a worker that never opened it."""
        queue = self._store.queue(queue_name)
        for job_id in self._redis.lrange(queue.intermediate_queue_key, 0, -1):
            record = self._record(job_id.decode())
            if record is None or record.status.is_terminal:
                self._redis.lrem(queue.intermediate_queue_key, 0, job_id)
            else:
                self._return(record, has_killed=False)

    def _record(self, job_id: str) -> JobRecord | None:
        try:
            return self._store.record(job_id)
        except (JobNotFoundError, ContractError):
            return None

    def _forget_in_rq(self, slug: str, worker: str) -> None:
        """Take a dead worker and its executions off RQ's lists, so that ``rq info`` is true."""
        key = f"rq:worker:{worker}"
        executions = self._redis.smembers(f"{key}:executions")
        with self._redis.pipeline() as pipe:
            for composite in executions:
                execution = Execution.from_composite_key(composite.decode(), self._redis)
                for queue_name in names.queues_of(slug):
                    registry = StartedJobRegistry(
                        queue_name, self._redis, serializer=JSONSerializer
                    )
                    pipe.zrem(registry.key, composite)
                pipe.delete(execution.key, f"rq:executions:{execution.job_id}")
            pipe.srem(REDIS_WORKER_KEYS, key)
            for queue_name in names.queues_of(slug):
                pipe.srem(WORKERS_BY_QUEUE_KEY % queue_name, key)
            pipe.delete(key, f"{key}:executions")
            pipe.execute()

