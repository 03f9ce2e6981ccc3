"""``python -m api.batch_runner``: works on batches and sends webhooks; blocked while idle.

It holds little memory while there is nothing to do: the application is imported for the first
batch, and some time after the last one the process replaces itself by a new one.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import sys
import time
from functools import partial

from redis.exceptions import RedisError

from api.batches.wakeups import BatchWakeups
from jobs import asyncio_tasks
from jobs.batches.store import BatchStore
from jobs.contract.errors import JobError
from jobs.files.store import FileStore
from jobs.logs import set_up_logging
from jobs.settings import Settings, load_server_settings
from jobs.storage.connection import AsyncRedis, SyncRedis, connect, connect_async

_BLOCK_S = 60
_RETRY_S = 1.0
_CLEAN_S = 600.0
_SENDER = "api.webhooks.sender"

log = logging.getLogger(__name__)


def main() -> int:
    """Exit status: 0 after a signal, 2 for a wrong setting."""
    settings = load_server_settings()
    set_up_logging(settings.log_level)
    if asyncio.run(_run(settings)):
        # The memory that the application took is given back by a new process only.
        os.execv(sys.executable, [sys.executable, "-m", "api.batch_runner"])
    return 0


async def _run(settings: Settings) -> bool:
    """Work until a signal. True if the process is to be replaced."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stopping.set)
    client = connect_async(settings.effective_redis_url)
    wakeups = BatchWakeups(client)
    listening = asyncio_tasks.keep_running(wakeups.run, "wake-ups of batches")
    sender_stop = asyncio.Event()
    sender = asyncio_tasks.keep_running(partial(_send, client, settings, sender_stop), "webhooks")
    try:
        return await _Idle(settings, wakeups, stopping).run()
    finally:
        sender_stop.set()
        await asyncio.wait({sender}, timeout=2)
        for task in (sender, listening):
            task.cancel()
        await asyncio.gather(sender, listening, return_exceptions=True)
        await client.aclose()


async def _send(client: AsyncRedis, settings: Settings, stop: asyncio.Event) -> None:
    try:
        sender = importlib.import_module(_SENDER)
    except ModuleNotFoundError:
        return
    await sender.run(client, settings, stop)


class _Idle:
    """Waits for work, and cleans up from time to time."""

    def __init__(self, settings: Settings, wakeups: BatchWakeups, stopping: asyncio.Event) -> None:
        self._settings = settings
        self._wakeups = wakeups
        self._stopping = stopping
        self._redis: SyncRedis = connect(settings.effective_redis_url)
        self._batches = BatchStore(settings, self._redis)
        self._cleaned_at = float("-inf")

    async def run(self) -> bool:
        try:
            while not self._stopping.is_set():
                if await self._is_work():
                    from api.batches.workshop import Workshop

                    await Workshop(self._settings, self._wakeups, self._stopping).run()
                    return not self._stopping.is_set()
                await self._wait()
            return False
        finally:
            self._redis.close()

    async def _is_work(self) -> bool:
        try:
            return await asyncio.to_thread(self._look)
        except (RedisError, JobError, OSError) as error:
            log.warning("batches cannot be read, will retry", extra={"error": str(error)})
            await asyncio.sleep(_RETRY_S)
            return False

    def _look(self) -> bool:
        self._batches.ensure_index()
        if time.monotonic() - self._cleaned_at > _CLEAN_S:
            self._cleaned_at = time.monotonic()
            FileStore(self._settings, self._redis).forget_expired()
            self._batches.forget_old(time.time())
        self._batches.drop_lost()
        return any(self._batches.folder(one).exists for one in self._batches.active())

    async def _wait(self) -> None:
        """Until a batch is added, a signal arrives, or it is time to clean up."""
        wake = asyncio.create_task(self._wakeups.event.wait())
        stop = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({wake, stop}, timeout=_BLOCK_S, return_when=asyncio.FIRST_COMPLETED)
        for task in (wake, stop):
            task.cancel()
        self._wakeups.event.clear()


if __name__ == "__main__":
    sys.exit(main())
