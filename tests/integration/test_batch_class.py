"""Batch jobs beside interactive ones, in a real worker: they give way, go on, and end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from redis import Redis
from rq import Queue
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer

from jobs.contract.events import EventKind
from jobs.contract.records import JobStatus
from jobs.storage import names
from tests.helpers.driver import Driver, assert_whole, text, token_ids
from tests.helpers.samples import generate
from tests.helpers.supervised import Supervised, supervised
from tests.helpers.waiting import wait_until

SLOW = "fake-20ms"
SLOTS = 2


@pytest.fixture(scope="module")
def running(redis_server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    with Redis.from_url(redis_server.url, protocol=2) as client:
        client.flushall()
    env = {"MGS_BATCH_STARVE_S": "1", "MGS_BATCH_QUANTUM": "4"}
    with supervised(redis_server.url, tmp_path_factory.mktemp("batch"), **env) as found:
        found.driver.load_ready(SLOW, "0", slots=SLOTS)
        yield found


@pytest.fixture
def driver(running: Supervised) -> Iterator[Driver]:
    yield running.driver
    wait_until(lambda: running.driver.status().running == 0, "nothing of the test runs on")


def batch(driver: Driver, size: int, max_tokens: int = 60, **fields: object) -> str:
    return driver.submit(generate("x" * size, max_tokens), job_class="batch", **fields)


def expected(size: int, max_tokens: int = 60) -> str:
    last = size + max_tokens
    return "".join(f"{position // 8:07d} "[position % 8] for position in range(size, last))


def test_an_interactive_job_starts_at_once_and_the_batch_goes_on_after_it(driver: Driver) -> None:
    lines = [batch(driver, size) for size in (8, 9, 10, 11)]
    for line in lines[:SLOTS]:
        driver.wait_running(line)
    asked = [driver.submit(generate("y" * size, 10)) for size in (20, 21)]
    for job_id in asked:
        assert driver.text_of(job_id)
    assert not all(driver.record(line).status.is_terminal for line in lines)
    for size, line in zip((8, 9, 10, 11), lines, strict=True):
        found = driver.wait_ended(line)
        assert_whole(found)
        assert text(found) == expected(size)
    assert sum(driver.record(line).yields for line in lines) >= 1
    assert all(driver.record(line).deaths == 0 for line in lines)


def test_rq_shows_a_job_that_gave_way_as_queued(driver: Driver) -> None:
    lines = [batch(driver, size, 200) for size in (8, 9)]
    for line in lines:
        driver.wait_running(line, 8)
    driver.redis.hset(names.hold_key("0"), "batch", "hold")
    for line in lines:
        driver.store.send_yield(driver.record(line).worker, line)
    for line in lines:
        driver.wait_status(line, JobStatus.QUEUED)
    queue = Queue("mgs-batch-0", connection=driver.redis, serializer=JSONSerializer)
    assert sorted(queue.job_ids) == sorted(lines)
    started = StartedJobRegistry(queue=queue)
    wait_until(lambda: started.count == 0, "no execution is left")
    assert [job.get_status() for job in queue.jobs] == ["queued", "queued"]
    assert not driver.store.claims("0")
    driver.redis.delete(names.hold_key("0"))
    for size, line in zip((8, 9), lines, strict=True):
        assert driver.text_of(line) == expected(size, 200)


def test_a_job_that_is_handed_back_again_and_again_says_the_same(driver: Driver) -> None:
    job_id = driver.submit(generate("x" * 8, 120))
    seen = 0
    while not driver.record(job_id).status.is_terminal:
        num = len(token_ids(driver.events(job_id)))
        if num >= seen + 5:
            seen = num
            driver.store.send_yield(driver.record(job_id).worker, job_id)
    found = driver.wait_ended(job_id)
    assert_whole(found)
    assert text(found) == expected(8, 120)
    assert driver.record(job_id).yields >= 5


def test_a_job_cancelled_while_it_gives_way_is_cancelled(driver: Driver) -> None:
    for _ in range(5):
        job_id = batch(driver, 8, 2000)
        driver.wait_running(job_id)
        worker = driver.record(job_id).worker
        driver.store.send_yield(worker, job_id)
        driver.store.cancel(job_id, "no more")
        assert driver.wait_ended(job_id)[-1].kind is EventKind.CANCELLED


def test_a_batch_ends_beside_endless_interactive_jobs(driver: Driver) -> None:
    """Each takes a slot as soon as one is free, and never leaves one."""
    line = batch(driver, 8, 12)
    asked = [driver.submit(generate("y" * 30, 25)) for _ in range(SLOTS)]
    while not driver.record(line).status.is_terminal:
        assert len(asked) < 200
        waiting = [job_id for job_id in asked if not driver.record(job_id).status.is_terminal]
        if len(waiting) < 2 * SLOTS:
            asked.append(driver.submit(generate("y" * 30, 25)))
    assert text(driver.wait_ended(line)) == expected(8, 12)
    for job_id in asked:
        assert driver.text_of(job_id)


def test_a_job_past_its_deadline_is_told_so(driver: Driver) -> None:
    running = [driver.submit(generate("y" * 30, 100)) for _ in range(SLOTS)]
    for job_id in running:
        driver.wait_running(job_id)
    now = driver.store.now()
    late = driver.submit(generate("y" * 30, 5), deadline_at=now + 0.2)
    ending = driver.submit(generate("y" * 30, 2000), deadline_at=now + 4)
    for job_id in (late, ending):
        event = driver.wait_ended(job_id)[-1]
        assert (event.kind, event.error.code) == (EventKind.FAILED, "job_timeout")
    assert all(driver.text_of(job_id) for job_id in running)


def test_a_worker_that_dies_leaves_batch_jobs_whole(driver: Driver, running: Supervised) -> None:
    lines = [batch(driver, size) for size in (8, 9, 10)]
    driver.wait_running(lines[0], 8)
    pid = driver.status().pid
    assert pid in running.worker_pids()
    os.kill(pid, signal.SIGKILL)
    driver.wait_ready(other_than=[pid])
    for size, line in zip((8, 9, 10), lines, strict=True):
        assert driver.text_of(line) == expected(size)
