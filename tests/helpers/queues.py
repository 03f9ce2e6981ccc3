"""Submits jobs to a queue and reads its lists."""

from __future__ import annotations

from typing import Any

from jobs.storage import names
from jobs.storage.store import JobStore
from tests.helpers.samples import submission


def submit(store: JobStore, request: Any = None, *, age_s: float = 0.0, **fields: Any) -> str:
    """Queue a job that is ``age_s`` seconds old; returns its id."""
    new = submission(request, **fields)
    store.submit(new)
    if age_s:
        key = names.job_key(new.job_id)
        created_at = float(store.redis.hget(key, "created_at")) - age_s
        store.redis.hset(key, "created_at", created_at)
        store.redis.zadd(names.JOB_INDEX, {new.job_id: created_at})
    return new.job_id


def waiting(store: JobStore, queue: str = "mgs-gen-0") -> list[str]:
    """Ids of the queued jobs, the next one first."""
    return _ids(store, store.queue(queue).key)


def between(store: JobStore, queue: str = "mgs-gen-0") -> list[str]:
    """Ids on RQ's intermediate list: taken, but without an attempt."""
    return _ids(store, store.queue(queue).intermediate_queue_key)


def _ids(store: JobStore, key: str) -> list[str]:
    return [item.decode() for item in store.redis.lrange(key, 0, -1)]
