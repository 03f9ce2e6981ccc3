"""This API process's sign of life, for who ends the jobs of dead ones."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from redis.exceptions import RedisError

from jobs import asyncio_tasks
from jobs.storage.connection import AsyncRedis
from jobs.storage.contact import RedisContact
from jobs.storage.presence import heartbeat_api, leave_api

_INTERVAL_S = 1.0
_BEAT_TIMEOUT_S = 2.0  # then by another connection: this one may be half-open
_LEAVE_TIMEOUT_S = 1.0

log = logging.getLogger(__name__)


class ApiHeartbeat:
    """Beats each second from a task of its own; each is a look at Redis as well."""

    def __init__(
        self, redis: AsyncRedis, name: str, orphan_s: float, contact: RedisContact
    ) -> None:
        self._redis = redis
        self._contact = contact
        self._name = name
        self._orphan_s = orphan_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send heartbeats; Redis may come later."""
        self._task = asyncio_tasks.keep_running(self._run, "api-heartbeat")

    async def stop(self) -> None:
        """Stop, and say so."""
        if self._task is not None:
            self._task.cancel()
        with contextlib.suppress(RedisError, TimeoutError):
            async with asyncio.timeout(_LEAVE_TIMEOUT_S):
                await leave_api(self._redis, self._name)

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_BEAT_TIMEOUT_S):
                    await heartbeat_api(self._redis, self._name, self._orphan_s)
                self._contact.note_answer()
            except (RedisError, TimeoutError) as error:
                log.debug("heartbeat missed", extra={"error": str(error)})
            await asyncio.sleep(_INTERVAL_S)
