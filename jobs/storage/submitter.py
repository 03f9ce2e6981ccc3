"""Submits jobs: writes all records of a job and queues it in one atomic step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rq import Queue
from rq.job import Job
from rq.job import JobStatus as RqStatus
from rq.serializers import JSONSerializer
from rq.utils import now

from jobs.contract.errors import KeyLimitError, ModelDrainingError, QueueFullError, TooManyJobsError
from jobs.contract.prompt_facts import kind_of, prompt_length
from jobs.contract.records import JobClass, JobRecord, JobStatus
from jobs.contract.requests import TASKS, Request, Task, encode_request
from jobs.settings import Settings
from jobs.storage import names
from jobs.storage.connection import AsyncRedis, SyncRedis
from jobs.storage.lua import submit_scripts

ABANDONED_TTL_S = 7 * 86400  # expiry of records until the end of the job sets a shorter one
MANAGEMENT = frozenset({Task.LOAD, Task.UNLOAD, Task.PULL})
"""Jobs of managers, which no limit counts."""
_NO_LIMIT = 0
_MAX_PULLS = 100  # as many as ``TAKE`` looks through


@dataclass(frozen=True, slots=True)
class Submission:
    """A job to be queued. ``facts`` are shown on dashboards and never contain a prompt.

    ``owner`` is the API process, ``caller`` a hash of the client's API key. ``is_first`` puts the
    job at the front of its queue. If the job is accepted, ``stored_data`` is kept for
    ``stored_ttl_s`` seconds in the field ``record`` of the hash ``stored_key``. ``keep_alive_s`` is
    how long the client wants the model to stay loaded after the job: ``None`` if it does not say,
    negative: for ever, 0: no longer than jobs need it. The fields after it are the record's, but
    for ``max_jobs``, the key's own limit. A line of a ``batch`` is in no list of jobs, and no limit
    counts it.
    """

    job_id: str
    model_id: str
    request: Request
    facts: dict[str, Any]
    is_background: bool = False
    owner: str = ""
    caller: str = ""
    is_first: bool = False
    stored_key: str = ""
    stored_data: bytes = b""
    stored_ttl_s: int = 0
    keep_alive_s: float | None = None
    job_class: JobClass = "interactive"
    priority: int = 0
    deadline_at: float | None = None
    weight: float = 1.0
    max_running: int = 0
    batch: str = ""
    line: int = 0
    retry_of: str = ""
    max_jobs: int | None = None
    reserved_tokens: int = 0

    @property
    def slug(self) -> str:
        return names.slug_of(self.model_id)

    @property
    def task(self) -> Task:
        return TASKS[type(self.request)]

    @property
    def queue_name(self) -> str:
        if self.task is Task.PULL:
            return names.PULL_QUEUE
        if self.task is not Task.GENERATE:
            return names.control_queue(self.slug)
        is_batch = self.job_class == "batch"
        return (names.batch_queue if is_batch else names.generation_queue)(self.slug)


class Submitter:
    """Submits each job id once, also when replies are lost or others submit the same job."""

    def __init__(self, redis: SyncRedis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._script = redis.register_script(submit_scripts.SUBMIT)

    def submit(self, submission: Submission, queue: Queue) -> None:
        """Queue the job. Raises ``QueueFullError`` and the like beyond a limit."""
        keys, args = _keys(submission, queue), self._args(submission, queue)
        self._check(self._script(keys=keys, args=args).decode(), submission)

    async def submit_through(self, redis: AsyncRedis, submission: Submission, queue: Queue) -> None:
        """``submit`` with an asyncio client, which saves two thread switches."""
        keys, args = _keys(submission, queue), self._args(submission, queue)
        answer = await redis.register_script(submit_scripts.SUBMIT)(keys=keys, args=args)
        self._check(answer.decode(), submission)

    def _args(self, submission: Submission, queue: Queue) -> list[str | bytes | int | float]:
        record = _flat(_record(submission))
        return [
            submission.job_id,
            "" if submission.slug == names.PULL_SLUG else submission.slug,
            ABANDONED_TTL_S,
            encode_request(submission.request),
            int(submission.is_first),
            int(submission.task not in MANAGEMENT and not submission.batch),
            *self._limits(submission),
            submission.stored_data,
            submission.stored_ttl_s,
            submission.job_class if submission.task is Task.GENERATE else "",
            submission.caller,
            self._settings.aging_s * submission.priority,
            submission.deadline_at or "",
            int(not submission.batch),
            len(record),
            *record,
            *_flat(self._rq_job(submission, queue).to_dict()),
        ]

    def _limits(self, submission: Submission) -> tuple[int, int, int]:
        """The limits for jobs in the queue, of the caller, and in total. 0 is no limit."""
        task = submission.task
        if task is Task.PULL:
            return _MAX_PULLS, _NO_LIMIT, _NO_LIMIT
        if task in MANAGEMENT or submission.batch:
            return _NO_LIMIT, _NO_LIMIT, _NO_LIMIT
        settings = self._settings
        in_queue = _NO_LIMIT if task is Task.TOKEN_COUNT else settings.max_queued_per_model
        of_caller = submission.max_jobs or settings.max_jobs_per_key or _NO_LIMIT
        return in_queue, of_caller, settings.max_jobs or _NO_LIMIT

    def _check(self, answer: str, submission: Submission) -> None:
        settings = self._settings
        if answer == "draining":
            model_id, job_class = submission.model_id, submission.job_class
            raise ModelDrainingError(f"model_id {model_id!r} takes no new {job_class} jobs")
        if answer == "queue":
            of_what = "to be downloaded" if submission.task is Task.PULL else "for this model"
            raise QueueFullError(f"{self._limits(submission)[0]} jobs wait {of_what} already")
        if answer == "caller":
            message = f"{self._limits(submission)[1]} jobs of this key wait or run already"
            raise (KeyLimitError if submission.max_jobs else TooManyJobsError)(message)
        if answer == "all":
            raise TooManyJobsError(f"{settings.max_jobs} jobs wait or run already")

    def _rq_job(self, submission: Submission, queue: Queue) -> Job:
        """The job for RQ: its id as the only argument, the facts in description and meta."""
        facts = submission.facts
        job = Job.create(
            submission.task.value,
            args=(submission.job_id,),
            id=submission.job_id,
            connection=self._redis,
            serializer=JSONSerializer,
            description=" · ".join(
                [submission.task.removeprefix("mgs."), *map(str, facts.values())]
            ),
            meta={"task": submission.task.value, **facts},
            origin=queue.name,
            status=RqStatus.QUEUED,
            timeout=-1,
            result_ttl=self._settings.log_ttl_s,
            failure_ttl=self._settings.failure_ttl_s,
        )
        job.enqueued_at = now()
        return job


def _keys(submission: Submission, queue: Queue) -> list[str]:
    job_id = submission.job_id
    keys = [
        names.job_key(job_id),
        names.request_key(job_id),
        names.JOB_INDEX,
        names.JOB_EXPIRY,
        names.LIVE,
        names.live_key(submission.caller),
        queue.key,
        names.wake_key(queue.name),
        names.SLUGS,
        Job.key_for(job_id),
        Queue.redis_queues_keys,
        names.hold_key(submission.slug),
        names.hints_key(queue.name),
        names.fair_key(submission.slug),
    ]
    if submission.stored_data:
        keys += [submission.stored_key, names.RESPONSE_EXPIRY]
    return keys


def _record(submission: Submission) -> dict[str, str | int | float]:
    """The job's record without its creation time, which the script takes from Redis."""
    record = JobRecord(
        job_id=submission.job_id,
        task=submission.task,
        model_id=submission.model_id,
        queue=submission.queue_name,
        status=JobStatus.QUEUED,
        created_at=0.0,
        is_background=submission.is_background,
        owner=submission.owner,
        caller=submission.caller,
        api=kind_of(submission.request),
        prompt_chars=prompt_length(submission.request),
        job_class=submission.job_class,
        priority=submission.priority,
        deadline_at=submission.deadline_at,
        weight=submission.weight,
        max_running=submission.max_running,
        batch=submission.batch,
        line=submission.line,
        retry_of=submission.retry_of,
        model="" if submission.task in MANAGEMENT else str(submission.facts.get("model", "")),
        reserved_tokens=submission.reserved_tokens,
    )
    fields = record.to_redis()
    del fields["created_at"]
    return fields


def _flat(fields: dict[str, str | int | float]) -> list[str | int | float]:
    return [part for item in fields.items() for part in item]
