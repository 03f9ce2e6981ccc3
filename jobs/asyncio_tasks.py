"""asyncio tasks whose failures are logged and handled at once.

asyncio reports the exception of a task that is not awaited only at garbage collection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

_PAUSE_S = 1.0

Run: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

log = logging.getLogger(__name__)


def keep_running(run: Run, name: str) -> asyncio.Task[None]:
    """A task that calls ``run`` again one second after each exception.

    It ends when ``run`` returns or when it is cancelled.
    """
    return asyncio.create_task(_run_again(run, name), name=name)


def start(
    run: Run, name: str, on_death: Callable[[Exception], None] | None = None
) -> asyncio.Task[None]:
    """A task that calls ``run`` once. ``on_death`` gets the exception that it raises."""
    return asyncio.create_task(_run_once(run, name, on_death), name=name)


async def _run_again(run: Run, name: str) -> None:
    while True:
        try:
            return await run()
        except Exception:
            log.exception("task failed, will restart", extra={"task": name})
            await asyncio.sleep(_PAUSE_S)


async def _run_once(run: Run, name: str, on_death: Callable[[Exception], None] | None) -> None:
    try:
        await run()
    except Exception as error:
        log.exception("task failed", extra={"task": name})
        if on_death is not None:
            on_death(error)
