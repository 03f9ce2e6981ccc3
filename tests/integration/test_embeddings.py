"""Embeddings by a real worker: vectors, errors by name, and one that dies on the way."""

from __future__ import annotations

import os
import signal
import struct

import pytest

from jobs.contract.events import Event, EventKind
from jobs.contract.records import JobStatus
from jobs.contract.requests import EmbedRequest, Prompt
from tests.helpers.driver import Driver, assert_whole
from tests.helpers.samples import new_job_id
from tests.helpers.waiting import wait_until


def submit(driver: Driver, *texts: str) -> str:
    request = EmbedRequest([Prompt(text=text) for text in texts])
    return driver.submit(request, job_id=new_job_id("embd"))


def vectors(events: list[Event]) -> dict[int, bytes]:
    return {event.choice: event.embedding for event in events if event.embedding is not None}


def test_each_input_gets_a_vector_of_length_one(driver: Driver) -> None:
    driver.load_ready("fake")
    found = driver.wait_ended(submit(driver, "a", "b", "a"))
    assert_whole(found)
    result = vectors(found)
    assert result[0] == result[2] != result[1]
    values = struct.unpack("<8f", result[0])
    assert sum(value * value for value in values) == pytest.approx(1.0, abs=1e-6)
    assert found[-1].usage.prompt_tokens == 3


def test_it_does_not_wait_behind_generations(driver: Driver) -> None:
    driver.load_ready("fake-20ms", slots=1)
    stream = driver.generate("x" * 8, 400)
    driver.wait_running(stream)
    assert driver.wait_ended(submit(driver, "a"))[-1].kind is EventKind.FINISHED
    assert driver.record(stream).status is JobStatus.RUNNING


def test_an_input_beyond_the_context_is_named(driver: Driver) -> None:
    driver.load_ready("fake", context_length=10)
    error = driver.wait_ended(submit(driver, "a", "x" * 11))[-1].error
    assert (error.code, error.param) == ("context_length_exceeded", "input")
    assert driver.wait_ended(submit(driver, "x" * 10))[-1].kind is EventKind.FINISHED


def test_a_running_one_can_be_cancelled(driver: Driver) -> None:
    driver.load_ready("fake")
    job_id = submit(driver, *["x" * 600] * 20_000)
    wait_until(lambda: vectors(driver.events(job_id)), "it has begun")
    driver.store.cancel(job_id, "enough")
    assert driver.wait_ended(job_id)[-1].kind is EventKind.CANCELLED


def test_the_next_worker_does_what_a_dead_one_left(driver: Driver) -> None:
    pid = driver.load_ready("fake").pid
    texts = [f"{number:04d}" * 150 for number in range(3000)]
    job_id = submit(driver, *texts)
    wait_until(lambda: vectors(driver.events(job_id)), "it has begun")
    os.kill(pid, signal.SIGKILL)
    found = driver.wait_ended(job_id)
    assert found[-1].kind is EventKind.FINISHED
    assert {event.attempt for event in found} == {1, 2}
    assert len(vectors(found)) == len(set(vectors(found).values())) == 3000
