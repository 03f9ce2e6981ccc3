"""Admission: opens and starts the jobs that a consumer has taken, or refuses them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from redis.exceptions import RedisError

from jobs.contract.errors import ContractError, JobCancelledError, JobError
from jobs.contract.requests import Task
from jobs.storage.connection import SyncRedis
from workers.generation.attempts import Attempt, AttemptOpener
from workers.generation.outbox import Outbox
from workers.generation.publisher import Publisher
from workers.rq_bridge.bookkeeper import Bookkeeper
from workers.rq_bridge.queue_consumer import QueueConsumer
from workers.rq_bridge.queued_job import QueuedJob, is_ours

log = logging.getLogger(__name__)


class Admission:
    """Admits the jobs of one consumer, on the consumer's thread.

    ``redis`` must not retry commands: opening an attempt twice could make two. ``stop_job(job_id,
    reason)`` ends a job that has started.
    """

    def __init__(
        self,
        redis: SyncRedis,
        publisher: Publisher,
        books: Bookkeeper,
        stop_job: Callable[[str, str], None],
    ) -> None:
        self._redis = redis
        self._publisher = publisher
        self._books = books
        self._stop_job = stop_job
        self._starting: str | None = None
        self._cancel_reason: str | None = None

    def admit(
        self,
        consumer: QueueConsumer,
        job: QueuedJob,
        expected: Task | None,
        start: Callable[[Attempt, Outbox], None],
    ) -> None:
        """Open the job's attempt and ``start`` it. An error of ``start`` becomes the job's end.

        Raises ``RedisError``; the caller then tries again.
        """
        self._begin(job.id)
        attempt = self._open(consumer, job, expected)
        if attempt is None:
            return
        outbox = self._outbox(attempt)
        try:
            if attempt.cancel_reason:
                raise JobCancelledError(attempt.cancel_reason)
            start(attempt, outbox)
        except JobCancelledError as error:
            outbox.cancel(error)
        except JobError as error:
            outbox.fail(error)
        except RedisError:
            raise
        except Exception as error:
            log.exception("job failed to start", extra={"job": job.id})
            outbox.fail(JobError(f"the job could not be started: {error}"))
        self._starting = None
        if self._cancel_reason is not None:
            self._stop_job(job.id, self._cancel_reason)

    def _begin(self, job_id: str) -> None:
        self._cancel_reason = None
        self._starting = job_id

    def note_cancel(self, job_id: str, reason: str) -> None:
        """Keep a cancel for a job that is just being started. May be called from any thread."""
        if job_id == self._starting:
            self._cancel_reason = reason

    def refuse(self, consumer: QueueConsumer, job_id: str) -> bool:
        """Fail a job whose entry on the queue is broken. False if there is no job to fail."""
        attempt = self._opener(consumer).open(job_id)
        if attempt is None:
            return False
        self._books.hold(consumer, job_id)
        error = ContractError("the job's entry on the queue cannot be read")
        self._outbox(attempt).fail(error)
        return True

    def _open(
        self, consumer: QueueConsumer, job: QueuedJob, expected: Task | None
    ) -> Attempt | None:
        """Open the job. ``None`` if it has ended or is not a job of this product."""
        attempt = self._opener(consumer).open(job.id) if is_ours(job, expected) else None
        if attempt is None:
            consumer.set_aside(job.id, "not a job of ours, or one that has ended")
        else:
            self._books.take(consumer, job)
        return attempt

    def _opener(self, consumer: QueueConsumer) -> AttemptOpener:
        return AttemptOpener(self._redis, consumer.name)

    def _outbox(self, attempt: Attempt) -> Outbox:
        return Outbox(
            self._publisher,
            attempt.job_id,
            attempt.attempt,
            attempt.seq,
            is_coalesced=attempt.is_line,
        )
