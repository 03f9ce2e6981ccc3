"""Heartbeats of API processes. Supervisors cancel the foreground jobs of dead ones."""

from __future__ import annotations

from collections.abc import Iterable

from jobs.storage import names, object_names
from jobs.storage.connection import AsyncRedis, SyncRedis


async def heartbeat_api(redis: AsyncRedis, name: str, orphan_s: float) -> None:
    """Write an API process's heartbeat. It expires after ``orphan_s``."""
    async with redis.pipeline(transaction=False) as pipe:
        pipe.set(names.api_key(name), b"", px=int(orphan_s * 1000))
        pipe.sadd(names.APIS, name)
        await pipe.execute()


async def leave_api(redis: AsyncRedis, name: str) -> None:
    """Remove an API process that shuts down and leaves no foreground job behind."""
    async with redis.pipeline(transaction=False) as pipe:
        pipe.delete(names.api_key(name))
        pipe.srem(names.APIS, name)
        await pipe.execute()


class Presence:
    """The supervisors' view of the API processes."""

    def __init__(self, redis: SyncRedis) -> None:
        self._redis = redis

    def silent_apis(self) -> set[str]:
        """Names of the API processes whose heartbeat has expired."""
        known = sorted(self._redis.smembers(names.APIS))
        if not known:
            return set()
        heartbeats = self._redis.mget([names.api_key("").encode() + name for name in known])
        silent = [
            name for name, heartbeat in zip(known, heartbeats, strict=True) if heartbeat is None
        ]
        return {name.decode(errors="replace") for name in silent}

    def reader_of(self, job_id: str) -> str | None:
        """A live API process whose client waits for the job of an idempotency key."""
        readers = self._redis.smembers(object_names.readers_key(job_id))
        found = sorted({one.decode(errors="replace").partition("|")[0] for one in readers})
        return next((name for name in found if self._redis.exists(names.api_key(name))), None)

    def forget_apis(self, gone: Iterable[str]) -> None:
        """Remove dead API processes, once their jobs are cancelled."""
        gone = set(gone)
        known = self._redis.smembers(names.APIS)
        listed = [name for name in known if name.decode(errors="replace") in gone]
        if listed:
            self._redis.srem(names.APIS, *listed)
