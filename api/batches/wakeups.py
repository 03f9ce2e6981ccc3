"""Tells this process that a batch was added or is to be cancelled, without asking Redis."""

from __future__ import annotations

import asyncio
import contextlib

import redis.asyncio
from redis.exceptions import RedisError

from jobs.storage import object_names
from jobs.storage.connection import AsyncRedis

_RETRY_S = 1.0


class BatchWakeups:
    """``event`` is set at each wake-up, and when some may have been missed; who waits clears it."""

    def __init__(self, client: AsyncRedis) -> None:
        # Commands of that client have a deadline; listening has none.
        self._redis = redis.asyncio.Redis(connection_pool=client.connection_pool)
        self.event = asyncio.Event()

    async def run(self) -> None:
        """Listen, for ever."""
        while True:
            with contextlib.suppress(RedisError):
                await self._listen()
            await asyncio.sleep(_RETRY_S)

    async def _listen(self) -> None:
        async with self._redis.pubsub() as subscription:
            await subscription.subscribe(object_names.BATCH_WAKEUP)
            while True:  # the first message confirms the subscription
                await subscription.get_message(timeout=None)
                self.event.set()
