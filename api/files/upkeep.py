"""Keeps the files tidy while an API process runs: the index, expired files, leftovers."""

from __future__ import annotations

import asyncio
import logging

from redis.exceptions import RedisError

from jobs import asyncio_tasks
from jobs.files.store import FileStore

_INTERVAL_S = 600.0
_RETRY_S = 5.0

log = logging.getLogger(__name__)


class FilesUpkeep:
    """At the start and every ten minutes. Batch runners do the same; together they do no harm."""

    def __init__(self, files: FileStore) -> None:
        self._files = files
        self._task: asyncio.Task[None] | None = None
        self._is_indexed = False

    def start(self) -> None:
        """Begin. Redis need not be reachable yet."""
        self._task = asyncio_tasks.keep_running(self._run, "files-upkeep")

    def stop(self) -> None:
        """End. What runs in a thread ends by itself."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._tidy)
                pause_s = _INTERVAL_S
            except RedisError as error:
                log.debug("files wait for Redis", extra={"error": str(error)})
                pause_s = _RETRY_S
            except OSError as error:
                log.warning("files cannot be tidied", extra={"error": str(error)})
                pause_s = _INTERVAL_S
            await asyncio.sleep(pause_s)

    def _tidy(self) -> None:
        if not self._is_indexed:
            # After a loss of power the index may lack the last second.
            self._files.ensure_index(is_forced=True)
            self._is_indexed = True
        num_removed = self._files.forget_expired()
        if num_removed:
            log.info("files removed", extra={"num_files": num_removed})
