"""Who waits for the jobs of idempotency keys, over all API processes.

Such a job is not cancelled when a connection closes: its client may send the request again. After
``MGS_ORPHAN_S`` without a reader it is. If this process ends before, a supervisor does it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from redis.exceptions import RedisError

from api.idempotency.claim import Claim
from jobs import asyncio_tasks
from jobs.contract.errors import JobNotFoundError
from jobs.storage import names, object_names
from jobs.storage.connection import AsyncRedis
from jobs.storage.lua import idempotency_scripts
from jobs.storage.store import JobStore
from jobs.storage.submitter import ABANDONED_TTL_S, Submission

_TRIES = 60
_RETRY_S = 0.5
_STOP_S = 1.0
_REASON = "its clients closed their connections"

log = logging.getLogger(__name__)
InThread = Callable[..., Awaitable[Any]]


class JobReaders:
    """The readers of one API process."""

    def __init__(
        self, redis: AsyncRedis, store: JobStore, name: str, orphan_s: float, in_thread: InThread
    ) -> None:
        self._redis = redis
        self._store = store
        self._name = name
        self._orphan_s = orphan_s
        self._in_thread = in_thread
        self._numbers = itertools.count(1)
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def has_left_jobs(self) -> bool:
        """Whether jobs run on without a reader, so that somebody has to look at them later."""
        return bool(self._leaving)

    async def bind(self, claim: Claim, submission: Submission, *, is_read: bool) -> str:
        """Enter the job before its submission. Returns the name of the reader, "" for none."""
        reader = f"{self._name}|{next(self._numbers)}" if is_read else ""
        is_batch = submission.job_class == "batch"
        ttl_s = ABANDONED_TTL_S if is_batch else claim.ttl_s
        job_id = submission.job_id
        await self._redis.register_script(idempotency_scripts.BIND)(
            keys=[claim.redis_key, object_names.readers_key(job_id)],
            args=[claim.suffix, job_id, ttl_s, reader],
        )
        return reader

    def leave_soon(self, job_id: str, reader: str) -> None:
        """Remove a reader; cancel the job later if it still runs and has no other then."""
        task = asyncio_tasks.start(partial(self._leave, job_id, reader), f"reader of {job_id}")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _leave(self, job_id: str, reader: str) -> None:
        keys = [object_names.readers_key(job_id), names.job_key(job_id)]
        if not await self._repeated(idempotency_scripts.LEAVE, keys, [reader]):
            return
        await asyncio.sleep(self._orphan_s)
        keys.reverse()
        args = [names.api_key(""), _REASON]
        if await self._repeated(idempotency_scripts.CANCEL_UNREAD, keys, args):
            await self._cancel(job_id)

    async def _repeated(self, script: str, keys: list[str], args: list[str]) -> bool:
        for _ in range(_TRIES):
            try:
                return bool(await self._redis.register_script(script)(keys=keys, args=args))
            except RedisError as error:
                log.warning("a reader cannot be removed yet", extra={"error": str(error)})
                await asyncio.sleep(_RETRY_S)
        return False

    async def _cancel(self, job_id: str) -> None:
        for _ in range(_TRIES):
            try:
                await self._in_thread(self._store.cancel, job_id, _REASON)
                return
            except JobNotFoundError:
                return
            except RedisError as error:
                log.warning("a job could not be ended yet", extra={"error": str(error)})
                await asyncio.sleep(_RETRY_S)

    async def stop(self) -> None:
        """Let readers that leave just now be removed; supervisors look after their jobs."""
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=_STOP_S)
