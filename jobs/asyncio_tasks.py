"""asyncio tasks whose death is noticed: what breaks one down is logged, and answered at once.

A task that nobody awaits keeps its exception to itself until the garbage is collected.
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
    """A task for ``run``, which begins anew, a second later, each time that it raises.

    It ends when ``run`` returns, or by its cancellation.
    """
    return asyncio.create_task(_run_again(run, name), name=name)


def start(
    run: Run, name: str, on_death: Callable[[Exception], None] | None = None
) -> asyncio.Task[None]:
    """A task for ``run``, once; ``on_death`` is told what it raises."""
    return asyncio.create_task(_run_once(run, name, on_death), name=name)


async def _run_again(run: Run, name: str) -> None:
    while True:
        try:
            return await run()
        except Exception:
            log.exception("a task broke down and begins anew", extra={"task": name})
            await asyncio.sleep(_PAUSE_S)


async def _run_once(run: Run, name: str, on_death: Callable[[Exception], None] | None) -> None:
    try:
        await run()
    except Exception as error:
        log.exception("a task broke down", extra={"task": name})
        if on_death is not None:
            on_death(error)
