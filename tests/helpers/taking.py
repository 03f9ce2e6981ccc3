"""Takes and claims jobs as a queue consumer does before it opens an attempt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from jobs.storage import names
from jobs.storage.connection import SyncRedis
from jobs.storage.lua import take_scripts
from workers.generation.attempts import Attempt, AttemptOpener

WORKER = "0.gen.test"
_NEXT = 1_000_000  # later than any take that a consumer has given up


def take(redis: SyncRedis, worker: str, job_id: str) -> None:
    """Move the job to RQ's intermediate list and claim it for ``worker``.

    Also a job that is on no queue any more, or not the first.
    """
    slug = names.slug_of_worker(worker)
    name = redis.hget(names.job_key(job_id), "queue") or names.generation_queue(slug).encode()
    queue = Queue(name.decode(), connection=redis, serializer=JSONSerializer)
    owner = redis.get(names.owner_key(slug)) or b""
    if run_take(redis, queue, worker, owner, is_only_meant=True, meant=[job_id]) is not None:
        return
    with redis.pipeline() as pipe:
        pipe.lrem(queue.key, 0, job_id)
        pipe.lrem(queue.intermediate_queue_key, 0, job_id)
        pipe.rpush(queue.intermediate_queue_key, job_id)
        pipe.sadd(names.claims_key(slug), names.claim(worker, job_id))
        pipe.execute()


def run_take(
    redis: SyncRedis,
    queue: Queue,
    worker: str = WORKER,
    owner: str | bytes = "",
    *,
    number: int = _NEXT,
    job_class: str = "",
    is_only_meant: bool = False,
    is_fair: bool = True,
    num_taking: int = 0,
    meant: Sequence[str] = (),
    held: Sequence[str] = (),
    used: Mapping[str, float] | None = None,
    running: Mapping[str, int] | None = None,
) -> bytes | None:
    """One call of ``TAKE``: the id that it took, "" if callers are held back."""
    slug = names.slug_of_worker(worker)
    keys = [queue.key, queue.intermediate_queue_key, names.claims_key(slug)]
    keys += [names.owner_key(slug), names.take_key(worker), names.hold_key(slug)]
    keys += [names.hints_key(queue.name), names.fair_key(slug)]
    args: list[str | bytes | float] = [worker, owner, names.job_key(""), int(is_only_meant)]
    args += [number, job_class, 10]
    args += [int(is_fair), num_taking, Job.key_for("")]
    args += [len(meant), *meant, len(held), *held]
    for fields in (used or {}, running or {}):
        args += [len(fields), *(part for item in fields.items() for part in item)]
    reply = redis.register_script(take_scripts.TAKE)(keys=keys, args=args)
    return reply if reply is None else bytes(reply[0]) if reply else b""


def open_attempt(redis: SyncRedis, worker: str, job_id: str) -> Attempt:
    """Take the job and open an attempt, which must succeed."""
    take(redis, worker, job_id)
    attempt = AttemptOpener(redis, worker).open(job_id)
    assert attempt is not None, f"{job_id} cannot be opened"
    return attempt


def claimed(redis: SyncRedis, slug: str = "0") -> set[tuple[str, str]]:
    """(worker, job id) of all claims of the model's workers."""
    members = map(names.parse_claim, redis.smembers(names.claims_key(slug)))
    return {member for member in members if member is not None}
