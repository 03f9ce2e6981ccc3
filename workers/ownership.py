"""Which supervisor runs a model: at most one in the world does, however many are started."""

from __future__ import annotations

import os
import platform
import secrets
from collections.abc import Iterable

import psutil

from jobs import names, scripts
from jobs.connection import SyncRedis

_TTL_S = 10


class Ownership:
    """Locks with expiry, one per model, held in the name of one supervisor process.

    A lock of a process of this machine that is gone is taken over at once; one of another machine
    when it expires.
    """

    def __init__(self, redis: SyncRedis) -> None:
        self._redis = redis
        self._swap = redis.register_script(scripts.TAKE_OVER)
        started_at = psutil.Process().create_time()
        self._owner = f"{platform.node()}|{os.getpid()}|{started_at}|{secrets.token_hex(4)}"

    def take(self, slug: str) -> bool:
        """True when the model is ours to run, now or already."""
        key = names.owner_key(slug)
        if self._redis.set(key, self._owner, nx=True, ex=_TTL_S):
            return True
        holder = (self._redis.get(key) or b"").decode()
        if holder != self._owner and _is_alive(holder):
            return False
        return bool(self._swap(keys=[key], args=[holder, self._owner, _TTL_S]))

    def renew(self, slugs: Iterable[str]) -> None:
        """Hold what we run for another while."""
        for slug in slugs:
            self._redis.set(names.owner_key(slug), self._owner, ex=_TTL_S)

    def release(self, slug: str) -> None:
        """Let the next one have it at once, if it is ours."""
        self._swap(keys=[names.owner_key(slug)], args=[self._owner, "", _TTL_S])


def _is_alive(holder: str) -> bool:
    """False only for a process of this machine that is known to be gone."""
    node, _, rest = holder.partition("|")
    pid, _, rest = rest.partition("|")
    if node != platform.node() or not pid.isdigit():
        return bool(holder)
    try:
        return str(psutil.Process(int(pid)).create_time()) == rest.partition("|")[0]
    except psutil.NoSuchProcess:
        return False
