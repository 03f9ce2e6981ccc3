"""A supervisor keeps the machine awake while its workers have jobs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs.platform import awake
from jobs.platform.current import current_platform
from tests.helpers.driver import Driver
from tests.helpers.samples import generate
from tests.helpers.supervised import supervisor_here
from tests.helpers.waiting import wait_until


class Caffeinated:
    """A platform that notes for which process the machine stays awake."""

    def __init__(self) -> None:
        self.pids: list[int] = []

    def keep_awake(self, pid: int) -> Caffeinated:
        self.pids.append(pid)
        return self

    def release(self) -> None:
        self.pids.remove(os.getpid())


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Caffeinated:
    played = Caffeinated()
    monkeypatch.setattr(current_platform(), "keep_awake", played.keep_awake)
    return played


def test_a_machine_stays_awake_while_a_job_runs_and_may_sleep_afterwards(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: Caffeinated
) -> None:
    monkeypatch.setattr(awake, "_REST_S", 0.1)
    driver = Driver(redis_url, tmp_path)
    with supervisor_here(redis_url, tmp_path, monkeypatch):
        driver.load_ready("fake-20ms")
        assert system.pids == []
        job_id = driver.submit(generate("k", 2000))
        wait_until(lambda: system.pids == [os.getpid()], "the machine is kept awake")
        driver.store.cancel(job_id, "seen")
        wait_until(lambda: system.pids == [], "the machine may sleep")
    driver.close()


def test_a_supervisor_that_ends_lets_the_machine_sleep(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: Caffeinated
) -> None:
    driver = Driver(redis_url, tmp_path)
    with supervisor_here(redis_url, tmp_path, monkeypatch):
        driver.load_ready("fake-20ms")
        driver.submit(generate("k", 2000))
        wait_until(lambda: system.pids == [os.getpid()], "the machine is kept awake")
    assert system.pids == []
    driver.close()
