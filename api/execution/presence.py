"""This API process's heartbeat: supervisors end the client jobs of API processes without one."""

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
_HEARTBEAT_TIMEOUT_S = 2.0  # the next uses another connection: this one may be half-open
_LEAVE_TIMEOUT_S = 1.0

log = logging.getLogger(__name__)


class ApiHeartbeat:
    """Sends a heartbeat each second from its own task; each also checks contact to Redis."""

    def __init__(
        self, redis: AsyncRedis, name: str, orphan_s: float, contact: RedisContact
    ) -> None:
        self._redis = redis
        self._contact = contact
        self._name = name
        self._orphan_s = orphan_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send heartbeats. Redis need not be reachable yet."""
        self._task = asyncio_tasks.keep_running(self._run, "api-heartbeat")

    async def stop(self, *, has_left_jobs: bool = False) -> None:
        """Stop, and remove the heartbeat.

        While there are jobs whose clients may come back it runs out by itself; then supervisors
        look after them.
        """
        if self._task is not None:
            self._task.cancel()
        if has_left_jobs:
            return
        with contextlib.suppress(RedisError, TimeoutError):
            async with asyncio.timeout(_LEAVE_TIMEOUT_S):
                await leave_api(self._redis, self._name)

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_HEARTBEAT_TIMEOUT_S):
                    await heartbeat_api(self._redis, self._name, self._orphan_s)
                self._contact.note_answer()
            except (RedisError, TimeoutError) as error:
                log.debug("heartbeat missed", extra={"error": str(error)})
            await asyncio.sleep(_INTERVAL_S)
