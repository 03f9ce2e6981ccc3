"""Another RQ application on the same Redis, none of whose data may change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from rq import Queue, SimpleWorker
from rq.job import Job
from rq.registry import (
    CanceledJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    StartedJobRegistry,
)
from rq.utils import now
from rq.worker_registration import REDIS_WORKER_KEYS, register

from jobs.storage.connection import SyncRedis

FUNCTION = "reports.tasks.build"
QUEUES = ("gen-reports", "ctl-x", "gen-0", "mgs-other", "mgs-gen", "mgs-gen-")
_YEAR_S = 365 * 86400
_SHARED = frozenset({Queue.redis_queues_keys.encode(), REDIS_WORKER_KEYS.encode()})


@dataclass
class ForeignApplication:
    """``fill`` puts jobs in every state on each of its queues; ``problems`` lists changed data."""

    redis: SyncRedis
    queues: Iterable[str] = QUEUES
    num_queued: int = 3
    _own: dict[bytes, tuple[bytes, bool]] = field(default_factory=dict)
    _parts: dict[bytes, list[Any]] = field(default_factory=dict)

    def fill(self) -> None:
        """Write all data, and record it."""
        content = {key: self._content(key) for key in self.redis.keys("*")}
        for name in self.queues:
            self._fill_queue(Queue(name, connection=self.redis))
        for key in self.redis.keys("*"):
            if key in _SHARED or key in content:
                added = [one for one in self._content(key) if one not in content.get(key, ())]
                self._parts[key] = added
            else:
                self._own[key] = self._state(key)

    def _state(self, key: bytes) -> tuple[bytes, bool]:
        """The key's bytes, and whether it expires."""
        return self.redis.dump(key), self.redis.ttl(key) >= 0

    def _fill_queue(self, queue: Queue) -> None:
        jobs = [queue.enqueue(FUNCTION, number, job_timeout=60) for number in range(6)]
        taken, *ended = jobs[:4]
        queue.enqueue(FUNCTION, "later", depends_on=jobs[-1])
        queue.enqueue_in(timedelta(days=1), FUNCTION, "tomorrow")
        self.redis.lrem(queue.key, 0, taken.id)
        self.redis.lpush(queue.intermediate_queue_key, taken.id)
        for job in ended:
            self.redis.lrem(queue.key, 0, job.id)
        registries = (FinishedJobRegistry, FailedJobRegistry, CanceledJobRegistry)
        for registry, job in zip(registries, ended, strict=True):
            registry(queue=queue).add(job, _YEAR_S)
        self._start(queue, taken)
        for number in range(self.num_queued):
            queue.enqueue(FUNCTION, number)

    def _start(self, queue: Queue, job: Job) -> None:
        """A worker of the application, and a job that it runs."""
        worker = SimpleWorker([queue], connection=self.redis)
        worker.birth_date = worker.last_heartbeat = now()
        self.redis.hset(worker.key, mapping=worker.serialize())
        register(worker)
        started = StartedJobRegistry(queue=queue).key
        self.redis.zadd(started, {f"{job.id}:{'0' * 32}": self.redis.time()[0] + _YEAR_S})

    @property
    def num_keys(self) -> int:
        """Number of keys that only the application uses."""
        return len(self._own)

    def is_foreign(self, key: bytes) -> bool:
        """True for a key that existed before the product ran, or that both use."""
        return key in self._own or key in self._parts

    def entries_of_others(self, key: bytes) -> list[Any]:
        """The entries of an application's key that are not its own."""
        parts = self._parts.get(key)
        return [] if parts is None else [one for one in self._content(key) if one not in parts]

    def problems(self) -> list[str]:
        """The application's keys that have changed, and its lost entries of keys that both use."""
        return [*self._changed(), *self._lost()]

    def _changed(self) -> Iterator[str]:
        for key, state in self._own.items():
            if self._state(key) != state:
                yield f"{key!r} has changed"

    def _lost(self) -> Iterator[str]:
        for key, parts in self._parts.items():
            left = [one for one in self._content(key) if one in parts]
            if left != parts:
                yield f"of {key!r} {len(parts) - len(left)} entries are missing or not in order"

    def _content(self, key: bytes) -> list[Any]:
        """The entries of a key in order; those of sets are sorted."""
        kind = self.redis.type(key)
        if kind == b"list":
            return list(self.redis.lrange(key, 0, -1))
        if kind == b"zset":
            return list(self.redis.zrange(key, 0, -1, withscores=True))
        if kind == b"set":
            return sorted(self.redis.smembers(key))
        if kind == b"hash":
            return sorted(self.redis.hgetall(key).items())
        return [self.redis.dump(key)]
