"""Which supervisor runs a model: at most one in the world does, however many are started."""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection

import psutil

from jobs import names, scripts
from jobs.connection import SyncRedis

_TTL_S = 10


class Ownership:
    """Locks with expiry, one per model, held in the name of one supervisor process.

    A lock of a process of this machine that is gone is taken over at once; one of another machine
    when it expires.
    """

    def __init__(self, redis: SyncRedis, node: str) -> None:
        self._redis = redis
        self._node = node
        self._replace = redis.register_script(scripts.REPLACE_OWNER)
        started_at = psutil.Process().create_time()
        self._owner = f"{node}|{os.getpid()}|{started_at}|{secrets.token_hex(4)}"
        self._held: set[str] = set()

    def take(self, slug: str) -> bool:
        """True when the model is ours to run, now or already."""
        holder = (self._redis.get(names.owner_key(slug)) or b"").decode()
        if holder not in ("", self._owner) and _is_alive(holder, self._node):
            return False
        is_ours = self._set(slug, holder, self._owner)
        if is_ours:
            self._held.add(slug)
        return is_ours

    def renew(self, slugs: Collection[str]) -> set[str]:
        """Hold those for another while, and let the next one have the others at once.

        Answers those that another supervisor holds by now: this one was frozen for too long.
        """
        lost = {slug for slug in slugs if not self._renew(slug)}
        for slug in self._held.difference(slugs):
            self._set(slug, self._owner, "")
        self._held = set(slugs) - lost
        return lost

    def _renew(self, slug: str) -> bool:
        key = names.owner_key(slug)
        if self._redis.get(key) == self._owner.encode():
            return bool(self._redis.expire(key, _TTL_S))
        return self.take(slug)

    def _set(self, slug: str, holder: str, owner: str) -> bool:
        key = names.owner_key(slug)
        return bool(self._replace(keys=[key], args=[holder, owner, _TTL_S]))


def _is_alive(holder: str, node: str) -> bool:
    """False only for a process of this machine that is known to be gone."""
    where, _, rest = holder.partition("|")
    pid, _, rest = rest.partition("|")
    if where != node or not pid.isdigit():
        return True
    try:
        return str(psutil.Process(int(pid)).create_time()) == rest.partition("|")[0]
    except psutil.NoSuchProcess:
        return False
