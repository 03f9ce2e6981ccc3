"""RQ's worker loop for one queue. It admits jobs instead of running them.

RQ 3.0's own workers run one job at a time, or fork. This subclass keeps RQ's loop, registration
and records, so that RQ's tools work, and replaces what prevents batching. Each override has a test
that fails when RQ changes (tests/integration/test_queue_consumer.py).
"""

from __future__ import annotations

import itertools
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
from jobs.storage.lua import claim_scripts
from jobs.storage.store import TAKE_FENCE_TTL_S
from workers.rq_bridge.queued_job import QueuedJob
from workers.rq_bridge.rq_records import LEASE_S, RqRecords

_BLOCK_S = 1
_RETRY_S = 0.2
_MAX_NAMED = 512  # ids of held jobs sent with a take; generations are limited by slots

log = logging.getLogger(__name__)


class QueueConsumer(RqRecords):
    """The loop of one queue.

    ``wait_for_room()`` blocks until a job may be taken, and returns False to stop. ``admit(job)``
    takes the job over and must not wait for its end. ``refuse(job_id)`` ends a job whose entry is
    unusable: True if it will write the end and release the job. ``on_stop(job_id, reason)`` handles
    RQ's stop command. Nothing is taken while another supervisor than ``owner`` owns the model. Of
    the loads and unloads only those with ids in ``meant`` are taken; while ``is_only_meant()``,
    nothing else is.
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
        self._owner = owner
        self._meant = list(meant)
        self._is_only_meant = is_only_meant
        self._num_takes = 0
        self._find_taken = redis.register_script(claim_scripts.FIND_TAKEN)
        self._take_script = redis.register_script(claim_scripts.TAKE)
        self._rescued: list[str] = []
        self._must_rescue = False  # Redis may have given us a job that we do not know of
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
        job_id = self._rescued.pop() if self._rescued else self._take_id()
        if job_id is None:
            self.connection.blpop([names.wake_key(self.queue.name)], timeout=_BLOCK_S)
            return None
        self.in_hand.add(job_id)
        try:
            job = self.job_class.fetch(job_id, self.connection, self.serializer)
        except Exception as error:  # the hash is missing, or RQ cannot read it
            if is_transient(error):
                self.in_hand.discard(job_id)
                raise
            self.set_aside(job_id, repr(error))
            return None
        assert isinstance(job, QueuedJob)
        job.origin = self.queue.name  # the hash is not trusted
        return job

    def _take_id(self) -> str | None:
        """Take and claim the first suitable job (see ``TAKE``). ``None`` if there is none."""
        owner_key = names.owner_key(names.slug_of_worker(self.name))
        keys = [self.queue.key, self.queue.intermediate_queue_key, self.claims_key, owner_key]
        keys += [names.take_key(self.name)]
        self._num_takes += 1
        args = [
            self.name,
            self._owner,
            names.job_key(""),
            int(self._is_only_meant()),
            self._num_takes,
            len(self._meant),
            *self._meant,
            *itertools.islice(tuple(self.in_hand), _MAX_NAMED),
        ]
        found = self._take_script(keys=keys, args=args)
        return None if found is None else found.decode(errors="replace")

    def set_aside(self, job_id: str, why: str) -> None:
        """Remove an unusable job and tell its client, if there is one.

        If this worker's claim is gone, the job is left to the worker that has it.
        """
        log.error("job set aside", extra={"job": job_id, "why": why})
        is_ending = self._is_refused(job_id)
        if self.connection.sismember(self.claims_key, names.claim(self.name, job_id)):
            self.connection.lrem(self.queue.intermediate_queue_key, 0, job_id)
            self.connection.expire(self.job_class.key_for(job_id), LEASE_S)
            if not is_ending:
                self.connection.srem(self.claims_key, names.claim(self.name, job_id))
        if not is_ending:
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

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:
        """Keep listening after any error. redis-py subscribes again by itself."""
        log.warning("command channel lost", extra={"worker": self.name, "error": str(exc)})
        time.sleep(_RETRY_S)

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Log one line without the job's arguments. The terminal event has the error."""
        log.info("job ended early", extra={"job": job.id, "error": repr(exc_info[1])})

    def rescue(self) -> None:
        """Find jobs that are claimed but not held here, because a reply was lost.

        Redis then refuses earlier takes that are still under way.
        """
        keys = [self.claims_key, names.take_key(self.name)]
        found = self._find_taken(keys=keys, args=[self._num_takes + 1, TAKE_FENCE_TTL_S])
        members = map(names.parse_claim, found)
        ours = {member[1] for member in members if member and member[0] == self.name}
        self._rescued = sorted(ours - self.in_hand)
        self._must_rescue = False
