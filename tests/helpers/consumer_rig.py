"""A queue consumer on a real queue, in a thread; the test acts as the model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue as Hand
from typing import Any

from redis.exceptions import RedisError
from rq.job import Job
from rq.serializers import JSONSerializer

from jobs.contract.errors import ErrorInfo
from jobs.contract.events import Event, EventKind, Usage
from jobs.storage import names
from jobs.storage.connection import SyncRedis, connect
from jobs.storage.store import JobStore
from tests.helpers.samples import event, settings_for, submission
from tests.helpers.waiting import wait_until
from workers.rq_bridge.bookkeeper import Bookkeeper
from workers.rq_bridge.queue_consumer import QueueConsumer
from workers.rq_bridge.queued_job import QueuedJob
from workers.scheduling.slots import SlotLimiter

GET_S = 20.0


class ConsumerRig:
    """``admitted`` and ``stopped``: the jobs that the consumer has passed on, in order."""

    def __init__(
        self,
        redis_url: str,
        folder: Path,
        slots: int = 100,
        *,
        is_begun: bool = True,
        queue: str = "mgs-gen-0",
        **of_consumer: Any,
    ) -> None:
        self._is_begun = is_begun
        self.redis: SyncRedis = connect(redis_url, retries=8)
        self.store = JobStore(self.redis, settings_for(redis_url, folder))
        self.queue = self.store.queue(queue)
        self.slots = SlotLimiter()
        self.slots.open(slots)
        self.admitted: Hand[QueuedJob] = Hand()
        self.stopped: Hand[tuple[str, str]] = Hand()
        self.refused: Hand[str] = Hand()
        self.num_waits = 0
        self._next_error: Exception | None = None
        self.books = Bookkeeper()
        self.consumer = QueueConsumer(
            queue,
            names.worker_name("0", "gen", "t"),
            connect(redis_url, retries=0),
            self._wait_for_room,
            self._admit,
            self._refuse,
            lambda job_id, reason: self.stopped.put((job_id, reason)),
            **of_consumer,
        )
        self.thread = threading.Thread(target=self.consumer.work, daemon=True)

    def _wait_for_room(self) -> bool:
        self.num_waits += 1
        return self.slots.wait()

    def raise_at_next_admit(self, error: Exception) -> None:
        self._next_error = error

    def _admit(self, job: QueuedJob) -> None:
        error, self._next_error = self._next_error, None
        if error is not None:
            raise error
        self.slots.take(1)
        self.books.take(self.consumer, job)
        if self._is_begun:
            self.books.begin(job.id)
        self.admitted.put(job)

    def _refuse(self, job_id: str) -> bool:
        self.refused.put(job_id)
        return False

    def submit(self, request: Any = None, **fields) -> str:
        new = submission(request, **fields)
        self.store.submit(new)
        return new.job_id

    def take(self) -> QueuedJob:
        """The next job that the consumer has admitted."""
        return self.admitted.get(timeout=GET_S)

    def take_begun(self) -> QueuedJob:
        """The same, once it is recorded as running in RQ."""
        job = self.take()
        self.flush()
        return job

    def close(self, job_id: str, kind: EventKind = EventKind.FINISHED, *, is_end: bool = True):
        """Close the job, as after its terminal event."""
        self.close_unflushed(job_id, kind, is_end=is_end)
        self.flush()
        self.slots.give(1)

    def close_unflushed(
        self, job_id: str, kind: EventKind = EventKind.FINISHED, *, is_end: bool = True
    ) -> None:
        error = None if kind is EventKind.FINISHED else ErrorInfo("engine_error", "it broke")
        self.books.close(_terminal(job_id, kind, error), is_end=is_end)

    def flush(self) -> None:
        """Return when the bookkeeper's writes are done, delayed starts included."""
        self._pass_queue()
        wait_until(lambda: not self.books._begins, "the begins", GET_S)
        self._pass_queue()

    def _pass_queue(self) -> None:
        done = threading.Event()
        self.books._actions.put(done.set)
        assert done.wait(GET_S), "the bookkeeper does not end"

    def fetch(self, job_id: str) -> Job:
        """The job as RQ's tools read it."""
        return Job.fetch(job_id, self.redis, JSONSerializer)

    def worker_fields(self) -> dict[str, str]:
        found = self.redis.hgetall(self.consumer.key)
        return {key.decode(): value.decode(errors="replace") for key, value in found.items()}

    def cut_connections(self) -> None:
        """Close every connection except that of this call, as in a network failure."""
        for kind in ("normal", "pubsub"):
            self.redis.client_kill_filter(_type=kind, skipme=True)

    def start(self) -> None:
        self.books.start()
        self.thread.start()

    def stop_loop(self) -> None:
        self.slots.close()
        self.consumer.request_consumer_stop()

    def stop(self) -> None:
        self.stop_loop()
        self.thread.join(GET_S)
        self.books.stop(GET_S)
        try:
            self.redis.close()
        except RedisError:
            return


def _terminal(job_id: str, kind: EventKind, error: ErrorInfo | None) -> Event:
    return event(kind, seq=9, job=job_id, error=error, usage=Usage(3, 5, 1))


@contextmanager
def running_consumer(
    redis_url: str, folder: Path, slots: int = 100, *, is_begun: bool = True, **of_consumer: Any
) -> Iterator[ConsumerRig]:
    """A consumer that runs until the block ends; without ``is_begun`` it records no job as running.

    ``of_consumer``: options of ``QueueConsumer``, e.g. the jobs on the queue that it may take.
    """
    rig = ConsumerRig(redis_url, folder, slots, is_begun=is_begun, **of_consumer)
    rig.start()
    try:
        yield rig
    finally:
        rig.stop()
