"""Time limits that do not count the hours in which the machine slept.

``time.monotonic`` stands still in sleep, on macOS and on Linux. The wall clock goes on, and so does
uvloop's clock on macOS.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_JUMP_S = 5.0  # less is a clock that was corrected, or a tick that came late
_MOST_SLEEPS = 100


@asynccontextmanager
async def awake_timeout(timeout_s: float) -> AsyncIterator[None]:
    """Like ``asyncio.timeout``, but by ``time.monotonic``. Raises ``TimeoutError``."""
    loop, deadline = asyncio.get_running_loop(), time.monotonic() + timeout_s
    async with asyncio.timeout(None) as timeout:
        timers = [loop.call_later(timeout_s, lambda: check())]

        def check() -> None:
            left_s = deadline - time.monotonic()
            if left_s > 0:
                timers[0] = loop.call_later(left_s, check)
            else:
                timeout.reschedule(loop.time())

        try:
            yield
        finally:
            timers[0].cancel()


class AwakeTime:
    """How long the machine was awake between two times of the wall clock.

    Call ``note`` at each tick: a wall clock that has jumped ahead of ``time.monotonic`` since the
    last one means sleep. A clock that was set forward looks the same.
    """

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None
        # (wall time at the end, length); a waiting job has slept through few of them.
        self._sleeps: deque[tuple[float, float]] = deque(maxlen=_MOST_SLEEPS)

    def note(self, now: float) -> None:
        """``now``: the wall clock's time."""
        monotonic = time.monotonic()
        if self._last is not None:
            wall_s, monotonic_s = now - self._last[0], monotonic - self._last[1]
            if wall_s - monotonic_s > _JUMP_S:
                self._sleeps.append((now, wall_s - monotonic_s))
        self._last = now, monotonic

    def between(self, start: float, end: float) -> float:
        """Seconds awake from ``start`` to ``end``."""
        asleep = sum(length for at, length in self._sleeps if start < at <= end)
        return max(end - start - asleep, 0.0)
