"""Time limits do not count the time in which the machine slept."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from jobs.platform.awake_time import AwakeTime, awake_timeout
from tests.helpers.clock import Clock

NIGHT_S = 8 * 3600.0


class SleepingLoop(asyncio.SelectorEventLoop):
    """Its clock goes on in sleep, as uvloop's does on macOS."""

    slept_s = 0.0

    def time(self) -> float:
        return super().time() + self.slept_s


def test_a_nights_sleep_ends_no_request() -> None:
    loop = SleepingLoop()

    async def request() -> str:
        async with awake_timeout(60.0):
            await asyncio.sleep(0)
            loop.slept_s = NIGHT_S
            await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)
        return "answered"

    with contextlib.closing(loop):
        assert loop.run_until_complete(request()) == "answered"


def test_a_request_that_takes_too_long_while_awake_ends() -> None:
    loop = SleepingLoop()

    async def request() -> None:
        async with awake_timeout(0.05):
            loop.slept_s = NIGHT_S
            await asyncio.sleep(2 * NIGHT_S)

    with contextlib.closing(loop), pytest.raises(TimeoutError):
        loop.run_until_complete(request())


def test_a_limit_of_no_time_ends_at_once() -> None:
    async def request() -> None:
        async with awake_timeout(0.0):
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        asyncio.run(request())


def test_a_wait_does_not_count_the_sleep_in_it(clock: Clock) -> None:
    awake, wall = AwakeTime(), time.time()
    awake.note(wall)
    clock.now += 10
    awake.note(wall + 10)
    clock.now += 1
    awake.note(wall + 11 + NIGHT_S)
    assert awake.between(wall, wall + 20 + NIGHT_S) == pytest.approx(20)
    assert awake.between(wall + 12 + NIGHT_S, wall + 20 + NIGHT_S) == pytest.approx(8)
    assert awake.between(wall, wall + 10) == pytest.approx(10)


def test_a_clock_that_is_corrected_by_seconds_or_set_back_is_no_sleep(clock: Clock) -> None:
    awake, wall = AwakeTime(), time.time()
    for step in (0, 4, -NIGHT_S):
        clock.now += 1
        wall += 1 + step
        awake.note(wall)
    assert awake.between(wall - 100, wall) == pytest.approx(100)
