"""RQ's worker loop for one queue. It admits jobs instead of running them.

RQ 3.0's own workers run one job at a time, or fork. This subclass keeps RQ's loop, registration
and records, so that RQ's tools work, and replaces what prevents batching. Each override has a test
that fails when RQ changes (tests/integration/test_queue_consumer.py).
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from redis.client import Pipeline
from redis.exceptions import RedisError
from rq import Queue
from rq.exceptions import StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import now

from jobs.storage import names
from jobs.storage.connection import SyncRedis, is_transient
from workers.rq_bridge.queued_job import QueuedJob
from workers.rq_bridge.rq_records import LEASE_S, RqRecords
from workers.rq_bridge.taking import HandedBack, Order, Taker

_BLOCK_S = 1
_HELD_BACK_S = 0.05  # while every caller runs as many as it may: the end of one wakes nobody
_RETRY_S = 0.2

log = logging.getLogger(__name__)


class QueueConsumer(RqRecords):
    """The loop of one queue.

    ``wait_for_room()`` blocks until a job may be taken, and returns False to stop. ``admit(job)``
    takes the job over and must not wait for its end. ``refuse(job_id)`` ends a job whose entry is
    unusable: True if it will write the end and release the job. ``on_stop(job_id, reason)`` handles
    RQ's stop command, ``on_yield(job_id)`` that to hand a job back. ``on_idle(is_idle)`` is told
    when nothing is left to be taken, and when there may be. ``owner`` and the rest: see ``Taker``.
    """

    job_class = QueuedJob

    def __init__(
        self,
        queue_name: str,
        name: str,
        redis: SyncRedis,
        wait_for_room: Callable[[], bool],
        admit: Callable[[QueuedJob], None],
        refuse: Callable[[str], bool],
        on_stop: Callable[[str, str], None],
        owner: str = "",
        meant: Sequence[str] = (),
        is_only_meant: Callable[[], bool] = lambda: False,
        order: Order | None = None,
        on_yield: Callable[[str], None] = lambda job_id: None,
        on_idle: Callable[[bool], None] = lambda is_idle: None,
    ) -> None:
        super().__init__(
            [queue_name],
            name=name,
            connection=redis,
            serializer=JSONSerializer,
            worker_ttl=LEASE_S,
            log_job_description=False,
        )
        self._wait_for_room = wait_for_room
        self._admit = admit
        self._refuse = refuse
        self._on_stop = on_stop
        self._on_yield = on_yield
        self._on_idle = on_idle
        self._taker = Taker(redis, self.queue, name, owner, order, meant, is_only_meant)
        self._rescued: list[str] = []
        self._must_rescue = False  # Redis may have given us a job that we do not know of
        self._is_empty = False  # after the last take: whoever adds a job wakes us
        self._looked_for_suspension_at = -math.inf

    def request_consumer_stop(self) -> None:
        """Take no further job. ``work`` returns within a second."""
        self._stop_requested = True

    # Called by RQ's loop.

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        """Register and subscribe to commands. Retries while Redis is unavailable."""
        self.birth_date = now()  # unlike RQ, no check of the name: it is new at each start
        for step in (self.keep_registries, self.send_heartbeat, self.subscribe):
            while not self._stop_requested:
                try:
                    step()
                    break
                except RedisError as error:
                    log.warning(
                        "redis unavailable", extra={"worker": self.name, "error": str(error)}
                    )
                    time.sleep(_RETRY_S)

    def _install_signal_handlers(self) -> None:
        """Install none. RQ's handlers raise inside Redis calls, which could lose jobs."""

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """False: a lost reply during maintenance would end the loop. See ``clean``."""
        return False

    def check_for_suspension(self, burst: bool) -> None:
        """Check at most once a second, as often as ``_take`` does while it waits for a job."""
        if time.monotonic() - self._looked_for_suspension_at < _BLOCK_S:
            return
        try:
            super().check_for_suspension(burst)
            self._looked_for_suspension_at = time.monotonic()
        except RedisError as error:
            log.warning("redis unavailable", extra={"worker": self.name, "error": str(error)})

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue]:
        """Wait for room, then for a job. Never returns ``None``, which would end RQ's loop."""
        while self._wait_for_room() and not self._stop_requested:
            try:
                job = self._take()
            except RedisError as error:
                log.warning("redis unavailable", extra={"worker": self.name, "error": str(error)})
                self._must_rescue = True
                time.sleep(_RETRY_S)
                continue
            if job is not None:
                return job, self.queue
        raise StopRequested

    def _take(self) -> QueuedJob | None:
        """Take the next job; ``None`` after a wait or for an unreadable job, which is set aside."""
        if self._must_rescue:
            self.rescue()
        if self._rescued:
            return self._readable(self._rescued.pop(), {})
        if self._is_empty:
            self._taker.end_take()  # the last one has started, or was set aside
            self._wait(_BLOCK_S)
            return None
        taken = self._taker.take(tuple(self.in_hand))
        if not taken:
            self._wait(_BLOCK_S if taken is None else _HELD_BACK_S)
            return None
        self._is_empty = taken.is_last
        return self._readable(taken.job_id, taken.fields)

    def _wait(self, seconds: float) -> None:
        """Wait until jobs may be taken, no longer than ``seconds``."""
        self._is_empty = False
        self._on_idle(True)
        if self.connection.blpop([names.wake_key(self.queue.name)], timeout=seconds):
            self._on_idle(False)

    def _readable(self, job_id: str, fields: dict[bytes, bytes]) -> QueuedJob | None:
        """The job that was taken, read from RQ's ``fields`` of it or, without them, from Redis."""
        self._on_idle(False)
        self.in_hand.add(job_id)
        try:
            job = self._restored(job_id, fields) if fields else self._fetched(job_id)
        except Exception as error:  # the hash is missing, or RQ cannot read it
            if is_transient(error):
                self.in_hand.discard(job_id)
                raise
            self.set_aside(job_id, repr(error))
            return None
        job.origin = self.queue.name  # the hash is not trusted
        return job

    def _restored(self, job_id: str, fields: dict[bytes, bytes]) -> QueuedJob:
        job = QueuedJob(job_id, self.connection, self.serializer)
        job.restore(fields)
        return job

    def _fetched(self, job_id: str) -> QueuedJob:
        job = QueuedJob.fetch(job_id, self.connection, self.serializer)
        assert isinstance(job, QueuedJob)
        return job

    def set_aside(self, job_id: str, why: str) -> None:
        """Remove an unusable job and tell its client, if there is one.

        If this worker's claim is gone, the job is left to the worker that has it.
        """
        log.error("job set aside", extra={"job": job_id, "why": why})
        claim = names.claim(self.name, job_id)
        has_claim = self.connection.sismember(self.claims_key, claim)
        # Before it is refused: from then on another thread may end it and remove the claim.
        if has_claim:
            self.connection.lrem(self.queue.intermediate_queue_key, 0, job_id)
            self.connection.expire(self.job_class.key_for(job_id), LEASE_S)
        if not self._is_refused(job_id):
            if has_claim:  # otherwise this, arriving late, would remove that of the next take
                self.connection.srem(self.claims_key, claim)
            self.in_hand.discard(job_id)

    def _is_refused(self, job_id: str) -> bool:
        """Whether the job's client will be told. False if Redis cannot read the job."""
        try:
            return self._refuse(job_id)
        except RedisError as error:
            if is_transient(error):
                raise
            log.error("client cannot be told", extra={"job": job_id, "error": str(error)})
            return False

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Pass the job to ``admit``, then continue with the queue."""
        assert isinstance(job, QueuedJob)
        try:
            self._admit(job)
        except Exception as error:
            if is_transient(error):
                log.warning(
                    "job not admitted, will retry", extra={"job": job.id, "error": str(error)}
                )
                return self._hand_back(job.id)
            # An error of one job must not end the loop for all others.
            log.exception("job cannot be admitted", extra={"job": job.id})
            self._set_aside_quietly(job.id, repr(error))

    def _set_aside_quietly(self, job_id: str, why: str) -> None:
        try:
            self.set_aside(job_id, why)
        except RedisError:
            self._hand_back(job_id)

    def _hand_back(self, job_id: str) -> None:
        """Let the next ``_take`` find the job again, after a short pause."""
        self.in_hand.discard(job_id)
        self._must_rescue = True
        time.sleep(_RETRY_S)

    def teardown(self) -> None:
        """Unregister. If Redis is unavailable, the lease expires instead."""
        try:
            super().teardown()  # type: ignore[no-untyped-call]
        except RedisError as error:
            log.warning("redis unavailable", extra={"worker": self.name, "error": str(error)})
            listener: Any = self.pubsub_thread
            if listener is not None:
                listener.stop()  # RQ stops it only after a successful teardown

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Do nothing. A thread calls ``send_heartbeat``, so long steps do not delay it."""

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        return LEASE_S

    def procline(self, message: str) -> None:
        """Do nothing: the process title names the model, not the queue."""

    def handle_payload(self, message: Any) -> None:
        """Handle RQ's commands. Unreadable ones are ignored: an error would end the listener."""
        try:
            payload = json.loads(message["data"])
            command, job_id = payload["command"], payload.get("job_id")
            reason = str(payload.get("reason") or "stopped by command")
            reason = reason.encode(errors="replace").decode()  # a lone surrogate cannot be encoded
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            log.warning("command ignored", extra={"worker": self.name})
            return
        if command in ("stop-job", "stop-execution") and isinstance(job_id, str):
            self._on_stop(job_id, reason)
        elif command == names.YIELD_COMMAND and isinstance(job_id, str):
            self._on_yield(job_id)

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:
        """Keep listening after any error. redis-py subscribes again by itself."""
        log.warning("command channel lost", extra={"worker": self.name, "error": str(exc)})
        time.sleep(_RETRY_S)

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Log one line without the job's arguments. The terminal event has the error."""
        log.info("job ended early", extra={"job": job.id, "error": repr(exc_info[1])})

    # Called on the bookkeeper's thread.

    def hand_back(self, job_id: str, attempt: int) -> HandedBack:
        """Put a running job back at the front of the queue, unless it is cancelled or another
        worker has it."""
        return self._taker.hand_back(job_id, attempt)

    def wake(self) -> None:
        """Let the consumer look again: a job that it has released may be taken."""
        self._taker.wake()

    def rescue(self) -> None:
        """Find jobs that are claimed but not held here, because a reply was lost."""
        self._rescued = sorted(self._taker.find_taken() - self.in_hand)
        self._must_rescue = False
