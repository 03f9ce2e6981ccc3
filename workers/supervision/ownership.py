"""Which supervisor runs a model: at most one in the world does, however many are started."""

from __future__ import annotations

from collections.abc import Collection

from jobs.storage import names
from jobs.storage.connection import SyncRedis
from jobs.storage.lua import claim_scripts
from workers.supervision.node_identity import NodeIdentity

_TTL_S = 6


class Ownership:
    """Locks with expiry, one per model, held in the name of one supervisor process.

    A lock of a process of this node that is gone for sure is taken over at once, any other when it
    has expired.
    """

    def __init__(self, redis: SyncRedis, identity: NodeIdentity) -> None:
        self._redis = redis
        self._identity = identity
        self._replace = redis.register_script(claim_scripts.REPLACE_OWNER)
        self._held: set[str] = set()

    def rename(self, identity: NodeIdentity) -> None:
        """Hold in another name from now on; nothing is held yet."""
        self._identity = identity

    @property
    def held(self) -> set[str]:
        """The models that were ours at the last look."""
        return set(self._held)

    def take(self, slug: str, *, may_be_new: bool = True) -> bool:
        """True when the model is ours to run, now or already.

        Unless ``may_be_new``, a model that nobody holds is taken only if it was ours before.
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
        """Hold those for another while, and let the next one have the others at once.

        Answers those that another supervisor holds by now: this one was frozen for too long.
        """
        lost = {slug for slug in slugs if not self.take(slug)}
        for slug in self._held.difference(slugs):
            self.release(slug)
        self._held = set(slugs) - lost
        return lost

    def release(self, slug: str) -> None:
        """Let another supervisor have the model."""
        self._set(slug, self._identity.owner, "")
        self._held.discard(slug)

    def _holder(self, slug: str) -> str:
        return (self._redis.get(names.owner_key(slug)) or b"").decode(errors="replace")

    def _set(self, slug: str, holder: str, owner: str) -> bool:
        key = names.owner_key(slug)
        return bool(self._replace(keys=[key], args=[holder, owner, _TTL_S]))
