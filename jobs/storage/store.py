"""Jobs in Redis and on RQ's queues: submit, look up, list, cancel, purge.

Synchronous, because RQ is. Calls may be repeated after a lost reply. Longer than 300 lines, since
it is the one list of thin script calls that the API and the supervisor share; each stands alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from redis.exceptions import ResponseError
from rq import Queue
from rq.job import Job
from rq.job import JobStatus as RqStatus
from rq.serializers import JSONSerializer

from jobs.contract.errors import ContractError, ErrorInfo, JobError, JobNotFoundError, no_job
from jobs.contract.events import EventKind
from jobs.contract.records import DeathCount, JobClass, JobRecord
from jobs.contract.requests import Request, decode_request
from jobs.settings import Settings
from jobs.storage import names
from jobs.storage.connection import AsyncRedis, SyncRedis
from jobs.storage.event_log import EventWriter
from jobs.storage.fence import checked
from jobs.storage.lua import claim_scripts, job_scripts
from jobs.storage.purger import INTERACTIVE, Purger
from jobs.storage.submitter import Submission, Submitter

TAKE_FENCE_TTL_S = 7 * 86400  # longer than any request can be delayed, by a sleep too

log = logging.getLogger(__name__)


class JobStore:
    """The operations of the API and the supervisor on jobs."""

    def __init__(self, redis: SyncRedis, settings: Settings) -> None:
        self.redis = redis
        self._settings = settings
        self._queues: dict[str, Queue] = {}
        self._submitter = Submitter(redis, settings)
        self.purger = Purger(self, settings.failure_ttl_s)
        self._request_cancel = redis.register_script(job_scripts.REQUEST_CANCEL)
        self._return_to_queue = redis.register_script(claim_scripts.RETURN_TO_QUEUE)
        self._stop_takes = redis.register_script(claim_scripts.STOP_TAKES)
        self._drop_claim = redis.register_script(claim_scripts.DROP_CLAIM)
        self._return_stray = redis.register_script(claim_scripts.RETURN_STRAY)
        self._retire = redis.register_script(job_scripts.RETIRE)
        self._adopt = redis.register_script(claim_scripts.ADOPT)
        self.writer = EventWriter(redis, settings.log_ttl_s, settings.failure_ttl_s)

    def queue(self, name: str) -> Queue:
        if name not in self._queues:
            self._queues[name] = Queue(name, connection=self.redis, serializer=JSONSerializer)
        return self._queues[name]

    def submit(self, submission: Submission) -> None:
        """Store the request and the record, and queue the job. Repeated calls have no effect.

        Raises ``QueueFullError`` or ``TooManyJobsError`` beyond a limit.
        """
        self._submitter.submit(submission, self.queue(submission.queue_name))

    async def submit_through(self, redis: AsyncRedis, submission: Submission) -> None:
        """``submit`` with an asyncio client."""
        queue = self.queue(submission.queue_name)
        await self._submitter.submit_through(redis, submission, queue)

    def record(self, job_id: str) -> JobRecord:
        """The job's record. Raises ``JobNotFoundError``, or ``ContractError`` if unreadable."""
        with _readable(f"the record of job {job_id[:80]!r}"):
            fields = self.redis.hgetall(names.job_key(job_id))
        if not fields:
            raise no_job(job_id)
        return JobRecord.from_redis(job_id, fields)

    def request(self, job_id: str) -> Request:
        """The job's request. Raises ``JobNotFoundError``, or ``ContractError`` if unreadable."""
        with _readable(f"the request of job {job_id[:80]!r}"):
            data = self.redis.get(names.request_key(job_id))
        if data is None:
            raise JobNotFoundError(f"the request of job {job_id[:80]!r} has expired", "job_id")
        return decode_request(data)

    def records(self, job_ids: Sequence[str]) -> list[JobRecord]:
        """The readable records of those ids, in the same order."""
        with self.redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hgetall(names.job_key(job_id))
            found = zip(job_ids, pipe.execute(raise_on_error=False), strict=True)
        read = (_read_record(job_id, fields) for job_id, fields in found if fields)
        return [record for record in read if record is not None]

    def adopt(self, job_id: str, owner: str) -> None:
        """Make the API process ``owner`` own a job whose former API process is dead."""
        self._adopt(keys=[names.job_key(job_id)], args=[owner, names.api_key("")])

    def cancel(self, job_id: str, reason: str) -> JobRecord:
        """Cancel a queued or running job. A job that has ended stays as it is.

        A running job ends within one engine step, with its own terminal event. Returns the record
        as found. Raises ``JobNotFoundError``.
        """
        status, attempt, worker = self._request_cancel(keys=[names.job_key(job_id)], args=[reason])
        record = self.record(job_id)
        if status == b"gone" or record.status.is_terminal:
            return record
        if status == b"queued":
            # If a worker opens the job meanwhile this fails, and the worker sees the reason.
            self._settle_cancelled(record, int(attempt), reason)
        elif worker:
            self.send_stop(worker.decode(), job_id, reason)
        return record

    def abandon(self, job_id: str, error: JobError) -> None:
        """Fail a job for which no worker or supervisor is alive.

        No effect if its worker writes an event at the same time. Raises ``JobNotFoundError``.
        """
        record = self.record(job_id)
        failed, lists = EventKind.FAILED, self.lists_of(record)
        if self.writer.settle_unowned(job_id, record.attempt, failed, error.to_info(), lists):
            self.close_in_rq(job_id, RqStatus.FAILED, self._settings.failure_ttl_s)

    def lists_of(self, record: JobRecord) -> list[str]:
        """Keys of the two lists that may hold a queued job: its queue and the intermediate list."""
        queue = self.queue(record.queue)
        return [queue.key, queue.intermediate_queue_key]

    def send_stop(self, worker: str, job_id: str, reason: str) -> None:
        """Send RQ's stop command, like ``rq.command.send_stop_job_command``."""
        message = {"command": "stop-job", "job_id": job_id, "reason": reason}
        self.redis.publish(names.rq_command_channel(worker), json.dumps(message))

    def send_yield(self, worker: str, job_id: str) -> None:
        """Ask the worker to hand a running generation back to its queue."""
        message = json.dumps({"command": names.YIELD_COMMAND, "job_id": job_id})
        self.redis.publish(names.rq_command_channel(worker), message)

    def _settle_cancelled(self, record: JobRecord, attempt: int, reason: str) -> None:
        error = ErrorInfo(code="job_cancelled", message=reason)
        cancelled, lists = EventKind.CANCELLED, self.lists_of(record)
        if self.writer.settle_unowned(record.job_id, attempt, cancelled, error, lists):
            self.close_in_rq(record.job_id, RqStatus.CANCELED, self._settings.failure_ttl_s)

    def close_in_rq(self, job_id: str, status: RqStatus, ttl_s: int) -> None:
        """Set an ended job's status and expiry in RQ, without a registry entry."""
        key = Job.key_for(job_id)
        if self.redis.exists(key):
            with self.redis.pipeline() as pipe:
                pipe.hset(key, "status", status.value)
                pipe.expire(key, ttl_s)
                pipe.execute()

    def pending_ids(
        self, slug: str, max_waiting: int | None = None, queues: Sequence[str] | None = None
    ) -> list[str]:
        """Ids of claimed, taken and waiting jobs of ``queues`` (by default the generation queue);
        at most ``max_waiting`` waiting ones per queue.
        """
        chosen = queues or [names.generation_queue(slug)]
        with self.redis.pipeline() as pipe:  # atomic: a job may move from a list to a claim
            pipe.smembers(names.claims_key(slug))
            for name in chosen:
                queue = self.queue(name)
                pipe.lrange(queue.intermediate_queue_key, 0, -1)
                pipe.lrange(queue.key, 0, -1 if max_waiting is None else max_waiting - 1)
            claims, *groups = pipe.execute()
        held = [job_id for _, job_id in _parsed(claims)]
        waiting = [job_id.decode(errors="replace") for group in groups for job_id in group]
        return list(dict.fromkeys(held + waiting))

    def claims(self, slug: str) -> list[tuple[str, str]]:
        """All claims of the model's workers, as (worker, job id)."""
        return _parsed(self.redis.smembers(names.claims_key(slug)))

    def drop_unreadable_claims(self, slug: str) -> None:
        """Remove malformed claims."""
        key = names.claims_key(slug)
        malformed = [one for one in self.redis.smembers(key) if names.parse_claim(one) is None]
        if malformed:
            log.warning("claims are unreadable", extra={"slug": slug, "num": len(malformed)})
            self.redis.srem(key, *malformed)

    def drop_claim(self, slug: str, worker: str, job_id: str, owner: str = "") -> None:
        """Remove a claim on a job that needs no recovery. ``owner`` as in ``return_to_queue``."""
        keys = [names.claims_key(slug), names.owner_key(slug)]
        checked(self._drop_claim(keys=keys, args=[names.claim(worker, job_id), owner]))

    def stop_takes(self, slug: str, workers: Iterable[str], owner: str = "") -> None:
        """Refuse delayed takes of dead workers. ``owner`` as in ``return_to_queue``."""
        keys = [names.owner_key(slug), *map(names.take_key, workers)]
        checked(self._stop_takes(keys=keys, args=[owner, TAKE_FENCE_TTL_S]))

    def slugs(self) -> set[str]:
        """Slugs of the models whose queues may hold jobs."""
        return {slug.decode(errors="replace") for slug in self.redis.smembers(names.SLUGS)}

    def retire(self, slug: str) -> bool:
        """Remove a model without jobs, claims and desired entry. False while it has any."""
        queues = [self.queue(name) for name in names.queues_of(slug)]
        keys = [names.SLUGS, names.DESIRED_MODELS, names.claims_key(slug), Queue.redis_queues_keys]
        keys += [names.hold_key(slug), names.fair_key(slug)]
        for queue in queues:
            keys += [queue.key, queue.intermediate_queue_key, names.wake_key(queue.name)]
            keys += [names.hints_key(queue.name)]
            keys += names.rq_registry_keys(queue.name)
        ttl_s = max(self._settings.log_ttl_s, self._settings.failure_ttl_s)
        return bool(self._retire(keys=keys, args=[slug, ttl_s, len(queues)]))

    def now(self) -> float:
        """Redis' clock in epoch seconds. All times in records are from this clock."""
        seconds, microseconds = self.redis.time()
        return float(seconds + microseconds / 1e6)

    def num_waiting(self, slugs: Sequence[str]) -> dict[tuple[str, str], int]:
        """Numbers of waiting jobs, by (slug, "generation", "batch" or "control")."""
        queues = {
            (slug, kind): name_of(slug)
            for slug in slugs
            for kind, name_of in (
                ("generation", names.generation_queue),
                ("batch", names.batch_queue),
                ("control", names.control_queue),
            )
        }
        with self.redis.pipeline(transaction=False) as pipe:
            for name in queues.values():
                pipe.llen(self.queue(name).key)
            return dict(zip(queues, pipe.execute(), strict=True))

    def purge(
        self, slug: str, older_than_s: float, classes: Collection[JobClass] = INTERACTIVE
    ) -> tuple[int, int]:
        """Cancel generations that are older. Returns how many were (waiting, running)."""
        return self.purger.purge(slug, older_than_s, classes)

    def page(
        self, before: float | None, limit: int, accept: Callable[[JobRecord], bool]
    ) -> tuple[list[JobRecord], float | None]:
        """Accepted jobs older than ``before``, newest first, and ``before`` of the next page."""
        found: list[JobRecord] = []
        upper = f"({before}" if before is not None else "+inf"
        while True:
            rows = self.redis.zrevrangebyscore(
                names.JOB_INDEX, upper, "-inf", start=0, num=200, withscores=True
            )
            for record in self.records([row[0].decode(errors="replace") for row in rows]):
                if accept(record):
                    found.append(record)
                if len(found) == limit:
                    return found, found[-1].created_at
            if len(rows) < 200:
                return found, None
            upper = f"({rows[-1][1]}"

    def return_to_queue(
        self, record: JobRecord, worker: str, *, counted_as: DeathCount | None, owner: str = ""
    ) -> bool:
        """Put a job claimed by the dead ``worker`` back at the front of its queue.

        ``counted_as``: the job's field that counts the worker's death. True if the job is on its
        queue now. Raises ``OwnershipLostError`` unless ``owner`` ("": no check) owns the model.
        """
        queue, job_id = self.queue(record.queue), record.job_id
        slug = names.slug_of(record.model_id)
        answer = self._return_to_queue(
            keys=[
                names.job_key(job_id),
                queue.intermediate_queue_key,
                queue.key,
                names.claims_key(slug),
                Job.key_for(job_id),
                names.wake_key(queue.name),
                names.owner_key(slug),
            ],
            args=[job_id, worker, counted_as or "", owner],
        )
        return checked(answer)

    def return_strays(self, slug: str) -> None:
        """Put unclaimed jobs in the model's intermediate lists back on their queues.

        Ids without a job record stay where they are.
        """
        for name in names.queues_of(slug):
            queue = self.queue(name)
            for job_id in self.redis.lrange(queue.intermediate_queue_key, 0, -1):
                self._return_stray(
                    keys=[
                        names.job_key(job_id.decode(errors="replace")),
                        queue.intermediate_queue_key,
                        queue.key,
                        names.claims_key(slug),
                        names.wake_key(name),
                    ],
                    args=[job_id],
                )


def _parsed(claims: Iterable[bytes]) -> list[tuple[str, str]]:
    members = map(names.parse_claim, claims)
    return sorted(member for member in members if member is not None)


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """Raise ``ContractError`` when a key holds a value of another type."""
    try:
        yield
    except ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        raise ContractError(f"{what} cannot be read: {error}") from error


def _read_record(job_id: str, fields: dict[bytes, bytes] | ResponseError) -> JobRecord | None:
    try:
        if isinstance(fields, ResponseError):  # the key holds another type
            raise ContractError(str(fields))
        return JobRecord.from_redis(job_id, fields)
    except ContractError as error:
        # One unreadable record must not hide all others.
        log.warning("job record is unreadable", extra={"job": job_id, "error": error.message})
        return None
