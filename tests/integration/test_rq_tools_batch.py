"""What RQ's tools say of the class batch is true in every state: waiting, running, handed back."""

from __future__ import annotations

import subprocess
import sys

from rq.job import Job
from rq.job import JobStatus as RqStatus
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer

from jobs.contract.events import EventKind
from jobs.contract.records import JobStatus
from jobs.scheduling.holds import Holds
from jobs.storage import names
from tests.helpers.driver import Driver
from tests.helpers.samples import generate, new_job_id
from tests.helpers.supervised import Supervised
from tests.helpers.waiting import wait_until

QUEUE = names.batch_queue("0")


def put_line(driver: Driver, num_tokens: int) -> str:
    return driver.submit(
        generate("x" * 8, num_tokens),
        job_id=new_job_id("bline"),
        job_class="batch",
        batch="batch_1",
        line=1,
        is_background=True,
    )


def rq_status(driver: Driver, job_id: str) -> RqStatus | None:
    return Job.fetch(job_id, driver.redis, JSONSerializer).get_status()


def info(redis_url: str) -> str:
    """What ``rq info`` prints."""
    command = [sys.executable, "-m", "rq.cli", "info", "--raw", "-u", redis_url]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_line_is_shown_where_it_is(driver: Driver, running: Supervised, redis_url: str) -> None:
    driver.load_ready("fake-20ms")
    line = put_line(driver, 300)
    driver.wait_running(line)
    wait_until(lambda: rq_status(driver, line) is RqStatus.STARTED, "RQ has it as running")
    started = StartedJobRegistry(queue=driver.store.queue(QUEUE))
    assert started.get_job_ids(cleanup=False) == [line]
    assert f"queue {QUEUE} 0, 1 executing" in info(redis_url)

    Holds(driver.redis).hold("0", "hold", ["batch"], "me")
    driver.store.send_yield(driver.record(line).worker, line)
    driver.wait_status(line, JobStatus.QUEUED)
    wait_until(lambda: not started.get_job_ids(cleanup=False), "RQ has it as running no more")
    assert rq_status(driver, line) is RqStatus.QUEUED
    assert driver.store.queue(QUEUE).get_job_ids() == [line]
    assert driver.redis.zcard(names.rq_executions_key(line)) == 0
    assert driver.store.claims("0") == []
    assert f"queue {QUEUE} 1, 0 executing" in info(redis_url)
    registries = [driver.redis.zcard(key) for key in names.rq_registry_keys(QUEUE)]
    assert registries == [0, 0, 0], "it has neither finished nor failed"

    Holds(driver.redis).resume("0", ["batch"])
    assert driver.wait_ended(line)[-1].kind is EventKind.FINISHED
    wait_until(lambda: rq_status(driver, line) is RqStatus.FINISHED, "RQ has it as finished")
    assert f"queue {QUEUE} 0, 0 executing" in info(redis_url)
