"""A model that makes no step on a GPU which another one uses: its jobs continue token for token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.continued import assert_continued
from tests.helpers.driver import Driver, assert_whole, text
from tests.helpers.samples import generate
from tests.helpers.supervised import Supervised, supervised

LENGTH = 12
FAULT = "<<stall@7>>"
ON_GPU = "fake-gpu-10ms"
ON_CPU = "fake-10ms"


@pytest.fixture
def running(redis_url: str, tmp_path: Path) -> Iterator[Supervised]:
    with supervised(redis_url, tmp_path, MGS_STALL_S="1", MGS_GPU_STALL_S="2") as found:
        yield found


def keep_busy(driver: Driver, name: str) -> str:
    """Load a second model that generates during the whole test; returns the job's id."""
    driver.load_ready(name, "1")
    job_id = driver.submit(generate("z", 8000, sampling={"ignore_eos": True}), "1")
    driver.wait_running(job_id)
    return job_id


def test_streams_continue_exactly_after_a_stall_beside_a_busy_model(driver: Driver) -> None:
    first = driver.load_ready(ON_GPU)
    other = keep_busy(driver, ON_GPU)
    other_pid = driver.wait_ready("1").pid
    neighbours = [driver.generate("y" * n, 60) for n in range(1, 8)]
    for job_id in neighbours:
        driver.wait_running(job_id)
    culprit = driver.generate(FAULT, LENGTH)
    assert_continued(driver, culprit, FAULT, LENGTH, neighbours)
    assert driver.status().pid != first.pid
    assert driver.record(other).attempt == 1
    assert driver.wait_ready("1").pid == other_pid


def test_a_job_that_stalls_each_time_ends_after_five_and_its_neighbour_does_not(
    driver: Driver,
) -> None:
    driver.load_ready(ON_GPU)
    keep_busy(driver, ON_GPU)
    neighbour = driver.generate("y", 100)
    driver.wait_running(neighbour, 2)
    culprit = driver.generate("<<stall>>")
    found = driver.wait_ended(culprit, timeout_s=90.0)
    assert found[-1].error is not None
    assert found[-1].error.code == "worker_lost"
    assert "on a GPU that is shared" in found[-1].error.message
    assert found[-1].attempt == 5
    assert driver.record(culprit).deaths == 0
    found = driver.wait_ended(neighbour)
    assert_whole(found)
    assert text(found) == driver.text_of(driver.generate("y", 100))
    assert driver.record(neighbour).device_losses == 0


@pytest.mark.parametrize(
    ("name", "other"), [(ON_GPU, None), (ON_GPU, ON_CPU), (ON_CPU, ON_GPU), (ON_CPU, ON_CPU)]
)
def test_without_another_busy_model_on_the_gpu_a_stall_ends_its_jobs(
    driver: Driver, name: str, other: str | None
) -> None:
    driver.load_ready(name)
    if other is not None:
        keep_busy(driver, other)
    found = driver.wait_ended(driver.generate("<<stall>>"))
    assert found[-1].error is not None
    assert found[-1].error.code == "job_timeout"
    assert found[-1].attempt == 1
