"""This API process's sign of life, for who ends the jobs of dead ones."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from redis.exceptions import RedisError

from jobs.connection import AsyncRedis
from jobs.presence import beat_api, leave_api

_INTERVAL_S = 1.0
_LEAVE_TIMEOUT_S = 1.0

log = logging.getLogger(__name__)


class ApiBeat:
    """Beats each second from a task of its own."""

    def __init__(self, redis: AsyncRedis, name: str, orphan_s: float) -> None:
        self._redis = redis
        self._name = name
        self._orphan_s = orphan_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to beat; Redis may come later."""
        self._task = asyncio.create_task(self._run(), name="api-beat")

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
                await beat_api(self._redis, self._name, self._orphan_s)
            except RedisError as error:
                log.debug("beat missed", extra={"error": str(error)})
            await asyncio.sleep(_INTERVAL_S)
