"""RQ's records of jobs and workers, changed from outside of the worker that wrote them."""

from __future__ import annotations

import logging

from redis.exceptions import RedisError
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job
from rq.job import JobStatus as RqStatus
from rq.job_lifecycle import record_job_failure
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY

from jobs.contract.events import Event, EventKind
from jobs.contract.records import JobRecord, JobStatus
from jobs.settings import Settings
from jobs.storage import names
from jobs.storage.store import JobStore

log = logging.getLogger(__name__)


class RqCleanup:
    """Closes jobs and removes dead workers, so that ``rq info`` and dashboards are correct.

    A line's job is left as it is: its batch deletes it at its end, perhaps before this could write.
    """

    def __init__(self, store: JobStore, settings: Settings) -> None:
        self._store = store
        self._redis = store.redis
        self._settings = settings

    def close(self, record: JobRecord) -> None:
        """Close an ended job, which still counts as running in RQ."""
        if record.batch:
            return
        status = {
            JobStatus.FINISHED: RqStatus.FINISHED,
            JobStatus.FAILED: RqStatus.FAILED,
            JobStatus.CANCELLED: _cancelled_in_rq(record),
        }[record.status]
        self._store.close_in_rq(record.job_id, status, self._settings.log_ttl_s)

    def end(self, record: JobRecord, event: Event) -> None:
        """Close a job as its terminal ``event`` says."""
        if record.batch:
            return
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

    def registered(self, slug: str) -> list[str]:
        """Names of the model's workers that RQ lists."""
        keys = [WORKERS_BY_QUEUE_KEY % name for name in names.queues_of(slug)]
        found = {key.decode(errors="replace") for key in self._redis.sunion(keys)}
        return sorted(key.removeprefix(names.rq_worker_key("")) for key in found)

    def forget(self, slug: str, worker: str) -> None:
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
