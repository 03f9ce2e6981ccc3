"""Moves data of earlier versions to its new names in Redis, at the first start of this version.

Each move is idempotent and may be interrupted and repeated. Only jobs with a record of this product
are moved, since other applications may use the same Redis and the same queue names.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from rq import Queue
from rq.job import Job
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY

from jobs.storage import names
from jobs.storage.connection import SyncRedis
from jobs.upgrade import move_scripts

_WAIT_S = 1.0
_RQ_QUEUE = "rq:queue:"
_ENDED = ("finished", "failed", "canceled")
_RUNNING = "wip"
_BATCH = 1000
_OLD_DESIRED = "mgs:want"
"""The hash of desired models in versions with the old queue names."""

log = logging.getLogger(__name__)


class Move(Protocol):
    """One entry of ``TABLE``."""

    def make(self, redis: SyncRedis) -> int:
        """Move what there is. Returns how many things were moved."""
        ...


@dataclass(frozen=True, slots=True)
class MoveFields:
    """Moves the fields of a hash to another key. Fields that exist there stay."""

    old: str
    new: str

    def make(self, redis: SyncRedis) -> int:
        move = redis.register_script(move_scripts.MOVE_FIELDS)
        return int(move(keys=[self.old, self.new]))


@dataclass(frozen=True, slots=True)
class MoveQueues:
    """Moves the product's jobs from RQ queues ``<old><slug>`` to ``<new><slug>``."""

    old: str
    new: str

    def make(self, redis: SyncRedis) -> int:
        slugs = self._rename_in_records(redis)
        return sum(self._move(redis, slug) for slug in sorted(slugs))

    def _rename_in_records(self, redis: SyncRedis) -> set[str]:
        """Rename the queues in job records. Returns the slugs of all known models."""
        rename = redis.register_script(move_scripts.RENAME_QUEUES)
        args = [names.job_key(""), Job.key_for(""), self.old, self.new]
        found = redis.hkeys(_OLD_DESIRED) + list(redis.smembers(names.SLUGS))
        for batch in _known_jobs(redis):
            found += rename(args=[*args, *batch])
        return {slug.decode(errors="replace") for slug in found}

    def _move(self, redis: SyncRedis, slug: str) -> int:
        old, new = self.old + slug, self.new + slug
        move = redis.register_script(move_scripts.MOVE_QUEUE)
        moved = move(
            keys=[
                Queue.redis_queues_keys,
                names.SLUGS,
                f"{_RQ_QUEUE}{old}",
                f"{_RQ_QUEUE}{old}:intermediate",
                f"{_RQ_QUEUE}{new}",
            ],
            args=[new, slug, names.job_key("")],
        )
        for kind in _ENDED:
            _move_registry(redis, f"rq:{kind}:{old}", f"rq:{kind}:{new}")
        _move_registry(redis, f"rq:{_RUNNING}:{old}", None)  # none of these jobs runs any more
        _forget_workers(redis, slug, old)
        redis.delete(f"rq:clean_registries:{old}")
        return int(moved)


@dataclass(frozen=True, slots=True)
class MoveClaims:
    """Moves claims from one set per worker to one set per model."""

    old: str

    def make(self, redis: SyncRedis) -> int:
        count = 0
        for key in redis.scan_iter(match=self.old + "*", count=1000):
            worker = key.decode(errors="replace").removeprefix(self.old)
            held = [job_id.decode(errors="replace") for job_id in redis.smembers(key)]
            with redis.pipeline() as pipe:
                if held:
                    claims = names.claims_key(names.slug_of_worker(worker))
                    pipe.sadd(claims, *(names.claim(worker, job_id) for job_id in held))
                    pipe.sadd(names.SLUGS, names.slug_of_worker(worker))
                pipe.delete(key)
                pipe.execute()
            count += len(held)
        return count


@dataclass(frozen=True, slots=True)
class Forget:
    """Deletes a key that is no longer used."""

    old: str

    def make(self, redis: SyncRedis) -> int:
        return int(redis.delete(self.old))


@dataclass(frozen=True, slots=True)
class NoteExpiries:
    """Adds the jobs of earlier versions to the index of expiries."""

    def make(self, redis: SyncRedis) -> int:
        note = redis.register_script(move_scripts.NOTE_EXPIRIES)
        keys, prefix = [names.JOB_INDEX, names.JOB_EXPIRY], names.job_key("")
        return sum(int(note(keys=keys, args=[prefix, *batch])) for batch in _known_jobs(redis))


TABLE: tuple[Move, ...] = (
    # Until 50ffc2d queues had names that other RQ applications may use too.
    MoveQueues("gen-", "mgs-gen-"),
    MoveQueues("ctl-", "mgs-ctl-"),
    MoveClaims("mgs:claim:"),
    Forget("mgs:nodes"),
    NoteExpiries(),
    # Until 37f2635.
    MoveFields(_OLD_DESIRED, names.DESIRED_MODELS),
)
"""All moves in order. New ones are added at the end."""


def upgrade(redis: SyncRedis, is_stopping: Callable[[], bool]) -> None:
    """Make the moves that this Redis has not had, once supervisors of old versions are gone.

    Raises ``RedisError`` when Redis fails; call it again then.
    """
    num_seen = int(redis.get(names.LAYOUT) or 0)
    if num_seen >= len(TABLE):
        return
    while old := _old_supervisors(redis):
        log.warning("waiting for supervisors of an earlier version", extra={"nodes": old})
        if is_stopping():
            return
        time.sleep(_WAIT_S)
    for move in TABLE[num_seen:]:
        if count := move.make(redis):
            log.info("moved to new names", extra={"move": repr(move), "num": count})
    redis.set(names.LAYOUT, len(TABLE))


def _old_supervisors(redis: SyncRedis) -> list[str]:
    """Live nodes of the version that listed nodes in a set."""
    if redis.type("mgs:nodes") != b"set":
        return []
    nodes = sorted(node.decode(errors="replace") for node in redis.smembers("mgs:nodes"))
    return [node for node in nodes if redis.exists(names.node_key(node))]


def _known_jobs(redis: SyncRedis) -> Iterator[list[bytes]]:
    """The ids in the index, in batches."""
    job_ids = redis.zrange(names.JOB_INDEX, 0, -1)
    for start in range(0, len(job_ids), _BATCH):
        yield job_ids[start : start + _BATCH]


def _move_registry(redis: SyncRedis, old: str, new: str | None) -> None:
    """Move the product's entries, and drop expired ones. ``new`` ``None`` drops all of them."""
    now = time.time()
    for member, score in redis.zrange(old, 0, -1, withscores=True):
        job_id = member.split(b":")[0]
        is_ours = redis.exists(names.job_key("").encode() + job_id)
        is_expired = not redis.exists(Job.key_for("").encode() + job_id) and 0 < score < now
        with redis.pipeline() as pipe:
            if is_ours and new is not None:
                pipe.zadd(new, {member: score})
            if is_ours or is_expired:
                pipe.zrem(old, member)
            pipe.execute()


def _forget_workers(redis: SyncRedis, slug: str, old_queue: str) -> None:
    """Remove the product's workers from RQ's list of the old queue. None of them is alive."""
    key = WORKERS_BY_QUEUE_KEY % old_queue
    pattern = re.compile(re.escape(names.rq_worker_key(slug)) + r"\.(gen|ctl)\.[0-9a-f]+")
    for member in redis.smembers(key):
        worker_key = member.decode(errors="replace")
        if not pattern.fullmatch(worker_key):
            continue
        worker = worker_key.removeprefix(names.rq_worker_key(""))
        with redis.pipeline() as pipe:
            pipe.srem(key, member)
            pipe.srem(REDIS_WORKER_KEYS, member)
            pipe.delete(worker_key, names.rq_worker_executions_key(worker))
            pipe.execute()
