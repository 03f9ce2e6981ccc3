"""Faults in single sequences of a worker: their jobs end, the process and the others go on."""

from __future__ import annotations

import pytest

from tests.helpers.driver import Driver


@pytest.mark.parametrize("place", ["draw", "piece"])
def test_a_fault_in_one_sequence_ends_its_job_and_no_worker(driver: Driver, place: str) -> None:
    pid = driver.load_ready("fake-10ms").pid
    undisturbed = driver.text_of(driver.generate("y", 60))
    neighbour = driver.generate("y", 60)
    driver.wait_running(neighbour)
    found = driver.wait_ended(driver.generate(f"<<raise:{place}@5>>"))
    assert found[-1].error.code == "internal_error"
    assert found[-1].usage.completion_tokens >= 4
    assert driver.text_of(neighbour) == undisturbed
    assert driver.text_of(driver.generate("x" * 8)) == "0000001 0000002 "
    assert driver.status().pid == pid


def test_a_step_that_fails_ends_the_batch_and_no_worker(driver: Driver) -> None:
    pid = driver.load_ready("fake-10ms").pid
    neighbour = driver.generate("y", 500)
    driver.wait_running(neighbour)
    doomed = driver.generate("<<raise:step@5>>")
    for job_id in (doomed, neighbour):
        assert driver.wait_ended(job_id)[-1].error.code == "engine_error"
    assert driver.text_of(driver.generate("x" * 8)) == "0000001 0000002 "
    assert driver.status().pid == pid
