"""Which API processes are alive, so that a job whose reader died with one is not run for nobody."""

from __future__ import annotations

from collections.abc import Iterable

from jobs.storage import names
from jobs.storage.connection import AsyncRedis, SyncRedis


async def heartbeat_api(redis: AsyncRedis, name: str, orphan_s: float) -> None:
    """Say that this API process lives; it counts as gone ``orphan_s`` after its last heartbeat."""
    async with redis.pipeline(transaction=False) as pipe:
        pipe.set(names.api_key(name), b"", px=int(orphan_s * 1000))
        pipe.sadd(names.APIS, name)
        await pipe.execute()


async def leave_api(redis: AsyncRedis, name: str) -> None:
    """Say that this API process ends in good order: it leaves no foreground job behind."""
    async with redis.pipeline(transaction=False) as pipe:
        pipe.delete(names.api_key(name))
        pipe.srem(names.APIS, name)
        await pipe.execute()


class Presence:
    """What the supervisors see of the API processes."""

    def __init__(self, redis: SyncRedis) -> None:
        self._redis = redis

    def silent_apis(self) -> set[str]:
        """API processes whose heartbeat has expired."""
        known = sorted(self._redis.smembers(names.APIS))
        if not known:
            return set()
        heartbeats = self._redis.mget([names.api_key("").encode() + name for name in known])
        silent = [
            name for name, heartbeat in zip(known, heartbeats, strict=True) if heartbeat is None
        ]
        return {name.decode(errors="replace") for name in silent}

    def forget_apis(self, gone: Iterable[str]) -> None:
        """Their jobs are dealt with."""
        gone = set(gone)
        known = self._redis.smembers(names.APIS)
        listed = [name for name in known if name.decode(errors="replace") in gone]
        if listed:
            self._redis.srem(names.APIS, *listed)
