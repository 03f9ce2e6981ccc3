"""A GPU that fails ends the worker's process; the next one continues all jobs token for token."""

from __future__ import annotations

from tests.helpers.continued import assert_continued
from tests.helpers.driver import Driver, assert_whole, text

LENGTH = 12
SLOW = "fake-10ms"


def test_streams_continue_exactly_after_the_loss_of_the_device(driver: Driver) -> None:
    first = driver.load_ready(SLOW)
    fault = "<<raise:device@7>>"
    neighbours = [driver.generate("y" * n, 60) for n in range(1, 8)]
    for job_id in neighbours:
        driver.wait_running(job_id)
    culprit = driver.generate(fault, LENGTH)
    assert_continued(driver, culprit, fault, LENGTH, neighbours)
    assert driver.status().pid != first.pid


def test_a_job_that_loses_the_device_each_time_ends_after_five_and_its_neighbour_does_not(
    driver: Driver,
) -> None:
    driver.load_ready(SLOW)
    neighbour = driver.generate("y", 100)
    driver.wait_running(neighbour, 2)
    culprit = driver.generate("<<raise:device>>")
    found = driver.wait_ended(culprit)
    assert found[-1].error is not None
    assert found[-1].error.code == "worker_lost"
    assert "the GPU failed" in found[-1].error.message
    assert found[-1].attempt == 5
    assert driver.record(culprit).deaths == 0
    found = driver.wait_ended(neighbour)
    assert_whole(found)
    assert text(found) == driver.text_of(driver.generate("y", 100))
    assert driver.record(neighbour).device_losses == 0
