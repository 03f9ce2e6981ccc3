"""What Redis knows of an idempotency key."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any, NamedTuple

from api.idempotency.claim import Claim
from api.web.errors import codes_of
from jobs.settings import Settings
from jobs.storage import names, object_names
from jobs.storage.connection import AsyncRedis
from jobs.storage.lua import idempotency_scripts

LEASE_S = 60
"""A request that makes no job is given up by others after this long without a sign of life."""
FORGOTTEN_CODES = (*codes_of(401, 429, 503), "model_unloaded")
"""Codes of jobs that failed by the state of the server: the same request may succeed later."""


class Stored(NamedTuple):
    """An answer that was given before."""

    print: str
    status: int
    content_type: bytes
    location: bytes
    body: bytes


class Found(NamedTuple):
    """What a request is, see ``CLAIM``. A claim for one that goes on, else the stored answer."""

    kind: str
    claim: Claim | None = None
    stored: Stored | None = None


class Claims:
    """The keys of one caller."""

    def __init__(self, redis: AsyncRedis, settings: Settings, caller: str) -> None:
        self._redis = redis
        self._caller = caller
        self._log_ttl_s = settings.log_ttl_s
        # As long as a job may take, and its log is kept. ``CLOSE`` sets the end when it is known.
        self.ttl_s = int(settings.answer_timeout_s) + settings.log_ttl_s

    async def _run(self, script: str, keys: list[str], args: list[Any]) -> Any:
        return await self._redis.register_script(script)(keys=keys, args=args)

    async def claim(self, key: str, path: str, print_: str) -> Found:
        """Claim the key, or find what it has made."""
        return await self._claim(key, path, print_, secrets.token_hex(16))

    async def look(self, key: str, path: str) -> Found:
        """The same without a claim: ``free`` for a key that has made nothing."""
        return await self._claim(key, path, "", "")

    async def _claim(self, key: str, path: str, print_: str, suffix: str) -> Found:
        digest = hashlib.sha256(key.encode()).hexdigest()
        redis_key = object_names.idempotency_key(self._caller, digest)
        args = [path, print_, suffix, LEASE_S, self.ttl_s, names.job_key("")]
        args += [len(FORGOTTEN_CODES), *FORGOTTEN_CODES]
        kind, *rest = await self._run(idempotency_scripts.CLAIM, [redis_key], args)
        found = kind.decode()
        if found in ("differs", "free"):
            return Found(found)
        if found == "done":
            print_of, status, content_type, location, body = (one or b"" for one in rest)
            stored = Stored(print_of.decode(), int(status), content_type, location, body)
            return Found(found, stored=stored)
        given, created = (one.decode() for one in rest)
        claim = Claim(redis_key, given, int(created), self.ttl_s, is_existing=found == "job")
        return Found(found, claim=claim)

    async def renew(self, claim: Claim) -> None:
        """Go on with a request that makes no job."""
        await self._run(idempotency_scripts.RENEW, [claim.redis_key], [claim.suffix, LEASE_S])

    async def close(self, claim: Claim, print_: str = "", stored: Stored | None = None) -> None:
        """End a request; with its answer, if that is to be repeated."""
        args: list[Any] = [claim.suffix, self._log_ttl_s, names.job_key(""), print_]
        if stored is not None:
            args += [stored.status, stored.content_type, stored.location, stored.body]
        await self._run(idempotency_scripts.CLOSE, [claim.redis_key], args)
