"""Ownership of models: at most one supervisor runs a model."""

from __future__ import annotations

from collections.abc import Collection

from jobs.storage import names
from jobs.storage.connection import SyncRedis
from jobs.storage.lua import claim_scripts
from workers.supervision.node_identity import NodeIdentity

_TTL_S = 6


class Ownership:
    """Expiring locks in Redis, one per model, held by one supervisor process.

    A lock of an ended process of this node is taken over at once, any other after its expiry.
    """

    def __init__(self, redis: SyncRedis, identity: NodeIdentity) -> None:
        self._redis = redis
        self._identity = identity
        self._replace = redis.register_script(claim_scripts.REPLACE_OWNER)
        self._held: set[str] = set()

    def rename(self, identity: NodeIdentity) -> None:
        """Use another identity. Call it before the first ``take``."""
        self._identity = identity

    @property
    def held(self) -> set[str]:
        """Slugs of the models that this process held after its last call."""
        return set(self._held)

    def take(self, slug: str, *, may_be_new: bool = True) -> bool:
        """Take or renew the lock. True when this process holds it.

        Unless ``may_be_new``, a free lock is taken only if this process held it before.
        """
        holder, ours = self._holder(slug), self._identity.owner
        if holder and holder != ours and not self._identity.is_gone(holder):
            return False
        if not holder and not may_be_new and slug not in self._held:
            return False
        is_ours = self._set(slug, holder, ours)
        if is_ours:
            self._held.add(slug)
        return is_ours

    def renew(self, slugs: Collection[str]) -> set[str]:
        """Renew the locks of ``slugs`` and release all others.

        Returns those that another supervisor holds now, because this one was frozen for too long.
        """
        lost = {slug for slug in slugs if not self.take(slug)}
        for slug in self._held.difference(slugs):
            self.release(slug)
        self._held = set(slugs) - lost
        return lost

    def release(self, slug: str) -> None:
        """Release the lock, so that another supervisor can take the model."""
        self._set(slug, self._identity.owner, "")
        self._held.discard(slug)

    def _holder(self, slug: str) -> str:
        return (self._redis.get(names.owner_key(slug)) or b"").decode(errors="replace")

    def _set(self, slug: str, holder: str, owner: str) -> bool:
        key = names.owner_key(slug)
        return bool(self._replace(keys=[key], args=[holder, owner, _TTL_S]))
