"""The watch over workers: whatever a look raises, the next is taken, and the count begins anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from api.execution import worker_liveness
from api.execution.worker_liveness import Missing, WorkerLiveness
from jobs import asyncio_tasks
from jobs.storage.contact import INTERRUPTED_AFTER_S, STABLE_AFTER_S, RedisContact
from tests.helpers.clock import Clock

WAIT_S = 20.0
GONE = {"0": Missing.MACHINE}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_liveness, "_INTERVAL_S", 0.001)
    monkeypatch.setattr(asyncio_tasks, "_PAUSE_S", 0.001)


class Looks:
    """Answers of Redis in turn, the last one for ever; an exception is raised."""

    def __init__(self, *answers: dict[str, Missing] | Exception) -> None:
        self.asked: list[list[str]] = []
        self._answers = list(answers)

    async def __call__(self, slugs: list[str]) -> dict[str, Missing]:
        self.asked.append(slugs)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


async def heard(watch: WorkerLiveness, num: int) -> list[int]:
    """The first counts that a listener for model 0 hears."""
    counts: list[int] = []
    has_all = asyncio.Event()

    def on_absence(num_looks: int, what: Missing) -> None:
        counts.append(num_looks)
        if len(counts) == num:
            has_all.set()

    watch.add("0", on_absence)
    async with asyncio.timeout(WAIT_S):
        await has_all.wait()
    watch.discard("0", on_absence)
    return counts[:num]


@pytest.mark.parametrize(
    "odd",
    [ValueError("an unreadable heartbeat"), RuntimeError("no thread"), RedisConnectionError()],
)
async def test_a_look_that_raises_does_not_end_the_watch(odd: Exception) -> None:
    looks = Looks(GONE, odd, GONE)
    assert await heard(WorkerLiveness(looks, RedisContact()), 3) == [1, 1, 2]


async def test_the_watch_goes_on_for_who_comes_after_all_others_have_left() -> None:
    looks = Looks(GONE)
    watch = WorkerLiveness(looks, RedisContact())
    assert await heard(watch, 1) == [1]
    await until(lambda: len(asyncio.all_tasks()) == 1)
    assert await heard(watch, 1) == [1]


async def test_a_listener_that_raises_hides_nothing_from_the_others() -> None:
    watch = WorkerLiveness(Looks(GONE), RedisContact())

    def raise_(num_looks: int, what: Missing) -> None:
        raise KeyError("odd")

    watch.add("0", raise_)
    assert await heard(watch, 2) == [1, 2]
    watch.discard("0", raise_)


async def test_nothing_is_reported_missing_soon_after_an_interruption() -> None:
    clock = Clock()
    looks = Looks(GONE)
    watch = WorkerLiveness(looks, RedisContact(clock, clock))
    clock.now += INTERRUPTED_AFTER_S
    counts: list[int] = []
    watch.add("0", lambda num_looks, what: counts.append(num_looks))
    await until(lambda: len(looks.asked) >= 5)
    assert counts == []
    for _ in range(3):
        clock.now += STABLE_AFTER_S / 3
        num_asked = len(looks.asked)
        await until(lambda: len(looks.asked) >= num_asked + 2)  # noqa: B023
    await until(lambda: len(counts) >= 2)
    assert counts[:2] == [1, 2]
    watch.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0)
