"""A sender of webhooks in a thread, as the batch runner runs it."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from api.webhooks.sender import Sender
from jobs.storage.connection import connect_async


@contextmanager
def sending(redis_url: str, *, timeout_s: float = 15.0) -> Iterator[None]:
    """Deliveries are sent within the block."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        redis = connect_async(redis_url)
        await Sender(redis, timeout_s=timeout_s).run(stop)
        await redis.aclose()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        assert not thread.is_alive()
        loop.close()


async def _run_alone(redis_url: str) -> None:
    await Sender(connect_async(redis_url)).run(asyncio.Event())


if __name__ == "__main__":  # for tests that kill a sender
    asyncio.run(_run_alone(sys.argv[1]))
