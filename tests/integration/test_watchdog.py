"""Workers that live but do not move, and jobs whose time is over."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jobs.contract.errors import JobNotFoundError
from jobs.contract.events import EventKind
from jobs.contract.records import JobStatus
from jobs.storage import names
from tests.helpers.driver import Driver
from tests.helpers.samples import generate
from tests.helpers.supervised import Supervised, supervised
from tests.helpers.waiting import wait_until

SLOW = "fake-10ms"


@pytest.fixture
def running(redis_url: str, tmp_path: Path) -> Iterator[Supervised]:
    short = {"MGS_STALL_S": "1", "MGS_QUEUE_TIMEOUT_S": "5"}
    with supervised(redis_url, tmp_path, **short) as found:
        yield found


def test_an_engine_that_stands_still_is_ended_and_the_next_job_runs(driver: Driver) -> None:
    pid = driver.load_ready().pid
    found = driver.wait_ended(driver.generate("<<stall>>"))
    assert found[-1].kind is EventKind.FAILED
    assert found[-1].error.code == "job_timeout"
    assert len([event for event in found if event.is_terminal]) == 1
    assert driver.text_of(driver.generate("x" * 8)) == "0000001 0000002 "
    assert driver.status().pid != pid


def test_a_frozen_worker_is_replaced_and_its_stream_goes_on(driver: Driver) -> None:
    pid = driver.load_ready(SLOW).pid
    undisturbed = driver.text_of(driver.generate("y", 300))
    job_id = driver.generate("y", 300)
    driver.wait_running(job_id, 20)
    os.kill(pid, signal.SIGSTOP)
    assert driver.text_of(job_id) == undisturbed
    assert not psutil.pid_exists(pid)


def test_a_job_that_kills_two_workers_is_not_tried_again(driver: Driver) -> None:
    driver.load_ready()
    found = driver.wait_ended(driver.generate("<<crash>>"))
    assert found[-1].error.code == "worker_lost"
    assert driver.text_of(driver.generate("x" * 8)) == "0000001 0000002 "


def test_a_job_that_waits_too_long_is_told_and_never_starts(driver: Driver) -> None:
    driver.load_ready(SLOW, slots=1)
    first = driver.generate("a", 2000, sampling={"ignore_eos": True})
    driver.wait_running(first)
    late = driver.generate("b", 500)
    found = driver.wait_ended(late)
    assert found[-1].error.code == "job_timeout"
    assert driver.record(late).attempt == 0
    assert driver.record(first).status is JobStatus.RUNNING


def test_a_job_of_a_dead_api_is_cancelled_unless_somebody_reads_it(driver: Driver) -> None:
    driver.load_ready(SLOW)
    owned = [driver.submit(generate("z", 2000), owner="api-dead") for _ in range(2)]
    background = driver.submit(generate("z", 2000), owner="api-dead", is_background=True)
    for job_id in (*owned, background):
        driver.wait_running(job_id)
    driver.store.adopt(owned[1], "api-alive")
    driver.redis.set(names.api_key("api-alive"), b"")
    driver.redis.sadd(names.APIS, "api-dead", "api-alive")
    found = driver.wait_ended(owned[0])
    assert found[-1].kind is EventKind.CANCELLED
    assert "API process" in found[-1].error.message
    wait_until(lambda: not driver.redis.sismember(names.APIS, "api-dead"), "it is forgotten")
    assert driver.record(owned[1]).status is JobStatus.RUNNING
    assert driver.record(background).status is JobStatus.RUNNING
    for job_id in (owned[1], background):
        driver.store.cancel(job_id, "enough")


def test_a_job_of_a_living_api_is_not_adopted(driver: Driver) -> None:
    driver.redis.set(names.api_key("api-here"), b"")
    job_id = driver.submit(generate("z"), owner="api-here")
    driver.store.adopt(job_id, "api-there")
    try:
        assert driver.record(job_id).owner == "api-here"
    except JobNotFoundError:
        pytest.fail("the record is gone")
