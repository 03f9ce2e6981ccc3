"""Where a consumer's jobs come in: their attempt is opened, or they are turned away with a reason."""

from __future__ import annotations

from jobs.contract.errors import ContractError
from jobs.contract.requests import Task
from jobs.storage.connection import connect
from workers.generation.publisher import Outbox, Publisher
from workers.rq_bridge.bookkeeper import Bookkeeper
from workers.rq_bridge.queue_consumer import QueueConsumer
from workers.rq_bridge.queued_job import QueuedJob, is_ours
from workers.runtime.attempts import Attempt, AttemptOpener


class Reception:
    """Opens jobs in the name of a worker's consumers; each consumer calls it from its own thread."""

    def __init__(self, redis_url: str, publisher: Publisher, books: Bookkeeper) -> None:
        # No retries: an attempt opened twice would be two.
        self._redis = connect(redis_url, retries=0)
        self._publisher = publisher
        self._books = books

    def open(
        self, consumer: QueueConsumer, job: QueuedJob, expected: Task | None
    ) -> Attempt | None:
        """Open the job's attempt; ``None`` when there is nothing (any more) to do for it."""
        attempt = self._opener(consumer).open(job.id) if is_ours(job, expected) else None
        if attempt is None:
            consumer.set_aside(job.id, "not a job of ours, or one that has ended")
        else:
            self._books.take(consumer, job)
        return attempt

    def refuse(self, consumer: QueueConsumer, job_id: str) -> bool:
        """Tell the client that the job's entry on the queue is broken; False if there is none."""
        attempt = self._opener(consumer).open(job_id)
        if attempt is None:
            return False
        self._books.hold(consumer, job_id)
        outbox = Outbox(self._publisher, job_id, attempt.attempt, attempt.seq)
        outbox.fail(ContractError("the job's entry on the queue cannot be read"))
        return True

    def _opener(self, consumer: QueueConsumer) -> AttemptOpener:
        return AttemptOpener(self._redis, consumer.name)
