"""RQ's records of a consumer and its jobs, written and renewed as RQ itself does.

They serve RQ's tools. Every call may be repeated after a lost reply.
"""

from __future__ import annotations

import time
from typing import Any

from redis.client import Pipeline
from redis.exceptions import RedisError
from rq import Queue, worker_registration
from rq.executions import Execution
from rq.job import JobStatus
from rq.registry import FailedJobRegistry, FinishedJobRegistry
from rq.results import Result
from rq.utils import now, utcformat
from rq.worker import BaseWorker, WorkerStatus

from jobs.storage import names
from jobs.storage.connection import SyncRedis
from workers.rq_bridge.queued_job import QueuedJob

LEASE_S = 30  # after this, RQ considers a worker or execution without a heartbeat dead


class RqRecords(BaseWorker):
    """RQ's records of one consumer. ``in_hand``: ids of jobs taken and not yet released."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.in_hand: set[str] = set()
        self._released_at = time.monotonic()
        self._is_noted_busy = False
        self._clock_lag_s = 0.0  # of this machine behind Redis' clock
        self.claims_key = names.claims_key(names.slug_of_worker(self.name))

    def _set_connection(self, connection: SyncRedis) -> SyncRedis:
        """Keep the connection as it is. RQ would set a time-out longer than its lease."""
        return connection

    def _set_ip_address(self, connection: SyncRedis) -> None:
        """Set the address for RQ's tools. An error of Redis must not end the worker here."""
        try:
            super()._set_ip_address(connection)
        except RedisError:
            self.ip_address = "unknown"

    @property
    def unused_s(self) -> float:
        """Seconds since the last job was released, 0 while any is held."""
        return 0.0 if self.in_hand else time.monotonic() - self._released_at

    @property
    def queue(self) -> Queue:
        return self.queues[0]

    # Called on the bookkeeper's thread.

    def begin(self, job: QueuedJob) -> Execution:
        """Note in RQ that the job is running."""
        for lost in [e for e in self.executions.values() if e.job_id == job.id]:
            self._delete_execution(job, lost)
        # Like RQ's prepare_execution and prepare_job_execution, in one transaction.
        with self.connection.pipeline() as pipe:
            execution = Execution.create(job, LEASE_S, pipeline=pipe, worker_name=self.name)
            self.executions[execution.id] = execution
            self._lease(execution, pipe)
            self._is_noted_busy = True
            self.set_state(WorkerStatus.BUSY, pipeline=pipe)
            job.prepare_for_execution(self.name, pipeline=pipe)
            pipe.persist(job.key)
            pipe.lrem(self.queue.intermediate_queue_key, 1, job.id)
            pipe.execute()
        return execution

    def _delete_execution(self, job: QueuedJob, lost: Execution) -> None:
        """Delete an execution whose reply was lost. When its lease expired, RQ would consider the
        job abandoned."""
        with self.connection.pipeline() as pipe:
            lost.delete(job=job, pipeline=pipe)
            pipe.execute()
        del self.executions[lost.id]

    def close_finished(
        self, job: QueuedJob, execution: Execution | None, result: dict[str, Any]
    ) -> None:
        """Note in RQ that the job has succeeded, and release it.

        ``execution`` is ``None`` if the job ended before it was noted as running.
        """
        with self.connection.pipeline() as pipe:
            if execution is None:
                job.worker_name = self.name
                pipe.lrem(self.queue.intermediate_queue_key, 1, job.id)
            else:
                self.cleanup_execution(job, pipe, execution)
            self._note_success(job, execution.id if execution else None, result, pipe)
            self._release(job.id, pipe)

    def _note_success(
        self, job: QueuedJob, execution_id: str | None, result: dict[str, Any], pipe: Pipeline
    ) -> None:
        """Like RQ's handling of a success, but without dependents, which our jobs do not have, and
        without rewriting fields that have not changed."""
        assert job.started_at is not None
        job.ended_at = now()
        ttl = job.get_result_ttl(self.default_result_ttl)
        self.increment_successful_job_count(pipeline=pipe)
        self.increment_total_working_time(job.ended_at - job.started_at, pipe)
        pipe.hset(job.key, mapping=_ended_fields(job))
        pipe.expire(job.key, ttl)
        Result.create(
            job,
            Result.Type.SUCCESSFUL,
            ttl,
            result,
            worker_name=self.name,
            pipeline=pipe,
            execution_id=execution_id,
            execution_started_at=job.started_at,
            execution_ended_at=job.ended_at,
        )
        job.finished_job_registry.add(job, ttl, pipe)

    def close_failed(self, job: QueuedJob, execution: Execution, error: Exception) -> None:
        self._finalize_failure(job, self.queue, execution, (type(error), error, None))

    def close_stopped(self, job: QueuedJob, execution: Execution, error: Exception) -> None:
        """End a stopped job as RQ does, then remove it from the failed jobs."""
        self._stopped_job_id = job.id
        self.close_failed(job, execution, error)
        self.queue.failed_job_registry.remove(job)

    def close_lost(self, job: QueuedJob, execution: Execution) -> None:
        """Remove an execution whose job was ended elsewhere."""
        with self.connection.pipeline() as pipe:
            self.cleanup_execution(job, pipe, execution)
            pipe.execute()

    def forget(self, job_id: str) -> None:
        """Release the job."""
        with self.connection.pipeline() as pipe:
            self._release(job_id, pipe)

    def _release(self, job_id: str, pipe: Pipeline) -> None:
        """Remove the claim on a job. Executes ``pipe`` with all commands in it."""
        pipe.srem(self.claims_key, names.claim(self.name, job_id))
        self._note_fewer(pipe)
        self.in_hand.discard(job_id)

    def note_returned(self) -> None:
        """Note that a job is on its queue again; the caller takes it out of ``in_hand``.

        Its claim was removed in the same step. If it were removed again here, and that arrived
        late, it would be the claim of the next take.
        """
        with self.connection.pipeline() as pipe:
            self._note_fewer(pipe)

    def _note_fewer(self, pipe: Pipeline) -> None:
        """Note a release in RQ's record of the consumer. Executes ``pipe``."""
        is_idle = not self.executions
        if self._is_noted_busy and is_idle and not self._stop_requested:
            self.set_state(WorkerStatus.IDLE, pipeline=pipe)
        pipe.execute()
        self._is_noted_busy = not is_idle
        self._released_at = time.monotonic()

    def keep_registries(self) -> None:
        """Make RQ's registries of ended jobs permanent. ``JobStore.retire`` sets their expiry."""
        with self.connection.pipeline(transaction=False) as pipe:
            for key in names.rq_registry_keys(self.queue.name):
                pipe.persist(key)
            pipe.execute()

    # Called on the heartbeat's thread.

    def send_heartbeat(self) -> None:
        """Renew RQ's leases of this consumer and its executions.

        It also registers each time, in case Redis has lost its data.
        """
        self.last_heartbeat = now()
        executions = list(self.executions.values())
        self._measure_clock()
        state = WorkerStatus.BUSY if executions else WorkerStatus.IDLE
        with self.connection.pipeline(transaction=False) as pipe:
            pipe.hset(self.key, mapping=self.serialize())
            pipe.hsetnx(self.key, "state", state)
            worker_registration.register(self, pipe)
            pipe.expire(self.key, LEASE_S)
            pipe.expire(self.executions_key, LEASE_S)
            for execution in executions:
                execution.heartbeat(execution.job.started_job_registry, LEASE_S, pipeline=pipe)
                self._lease(execution, pipe)
            pipe.execute()

    def _lease(self, execution: Execution, pipe: Pipeline) -> None:
        """Set the expiry of an execution by Redis' clock. RQ uses the local clock, and if that is
        behind, ``rq info`` would treat running jobs as abandoned."""
        until = time.time() + self._clock_lag_s + LEASE_S
        key = execution.job.started_job_registry.key
        pipe.zadd(key, {execution.composite_key: until}, xx=True)

    def _measure_clock(self) -> None:
        seconds, microseconds = self.connection.time()
        self._clock_lag_s = seconds + microseconds / 1e6 - time.time()

    def register_death(self) -> None:
        """Unregister the consumer. Recovery settles the jobs that it still held."""
        with self.connection.pipeline() as pipe:
            worker_registration.unregister(self, pipe)
            pipe.hset(self.key, "death", utcformat(now()))
            pipe.expire(self.key, 2 * LEASE_S)
            pipe.execute()

    def clean(self) -> None:
        """Remove expired entries from registries that nothing else cleans."""
        for registry in (FinishedJobRegistry, FailedJobRegistry):
            registry(queue=self.queue).cleanup()


def _ended_fields(job: QueuedJob) -> dict[str, str | bytes]:
    """The fields of the job's hash that have changed since it was read."""
    assert job.started_at is not None
    assert job.ended_at is not None
    return {
        "status": JobStatus.FINISHED.value,
        "meta": job._serialize_meta(),
        "started_at": utcformat(job.started_at),
        "ended_at": utcformat(job.ended_at),
        "last_heartbeat": utcformat(job.last_heartbeat or job.ended_at),
        "worker_name": job.worker_name or "",
    }
