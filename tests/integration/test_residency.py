"""A real supervisor parks models, starts them again, and makes room: no job notices."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.contract.events import EventKind
from jobs.contract.records import DesiredModel, JobStatus
from jobs.contract.requests import LoadRequest
from jobs.scheduling.holds import Holds
from jobs.storage import names
from jobs.storage.submitter import Submission
from tests.helpers.driver import Driver, assert_whole, text
from tests.helpers.samples import generate, new_job_id
from tests.helpers.supervised import Supervised, supervised
from tests.helpers.waiting import wait_until


@pytest.fixture
def small(redis_url: str, tmp_path: Path) -> Iterator[Supervised]:
    """A machine for one model at a time, whose models give way after a second."""
    limits = {"MGS_MODELS_MAX": "1", "MGS_SWAP_AFTER_S": "1"}
    with supervised(redis_url, tmp_path, **limits) as found:
        yield found


def want(driver: Driver, name: str, model_id: str, **fields: Any) -> DesiredModel:
    """What the API writes for a request that names a model on disk."""
    desired = DesiredModel(
        model_id=model_id,
        uid=new_job_id("uid"),
        load=LoadRequest(name, "fake"),
        load_job=new_job_id("load"),
        created_at=time.time(),
        is_parked=True,
        origin="auto",
        **fields,
    )
    assert driver.desired_models.put(names.slug_of(model_id), desired)
    return desired


def ask(driver: Driver, model_id: str, num_tokens: int = 8) -> str:
    job_id = driver.submit(generate("x" * 8, num_tokens), model_id)
    driver.desired_models.notify()
    return job_id


def wait_parked(driver: Driver, running: Supervised, model_id: str) -> None:
    def is_parked() -> bool:
        desired = driver.desired_models.get(names.slug_of(model_id))
        return desired is not None and desired.is_parked and driver.status(model_id) is None

    wait_until(is_parked, f"{model_id} is parked")


def test_a_model_without_a_job_is_not_started(driver: Driver, running: Supervised) -> None:
    want(driver, "fake", "a")
    want(driver, "fake", "b")
    assert driver.text_of(ask(driver, "b")) == "0000001 "
    assert driver.status("a") is None
    assert len(running.worker_pids()) == 1


def test_a_client_that_has_left_starts_nothing(small: Supervised) -> None:
    driver = small.driver
    driver.load_ready("fake-20ms", "busy")
    long_one = ask(driver, "busy", 200)
    driver.wait_running(long_one)
    want(driver, "fake", "a")
    left = ask(driver, "a")
    driver.store.cancel(left, "the client closed the connection")
    driver.wait_ended(long_one)
    assert driver.status("a") is None


def test_an_unused_model_is_parked_and_the_next_job_starts_it(
    driver: Driver, running: Supervised
) -> None:
    want(driver, "fake", "a", ttl_s=0.5)
    first = ask(driver, "a", 40)
    driver.wait_ended(first)
    wait_parked(driver, running, "a")
    assert not running.worker_pids()
    again = ask(driver, "a", 40)
    assert driver.text_of(again) == text(driver.events(first))


def test_a_long_answer_is_not_cut_by_a_short_time_to_live(
    driver: Driver, running: Supervised
) -> None:
    want(driver, "fake-20ms", "a", ttl_s=0.2)
    found = driver.wait_ended(ask(driver, "a", 120))
    assert_whole(found)
    assert found[-1].kind is EventKind.FINISHED
    assert found[-1].attempt == 1
    wait_parked(driver, running, "a")


def test_jobs_that_come_while_a_model_is_being_parked_are_served(
    driver: Driver, running: Supervised
) -> None:
    want(driver, "fake", "a", ttl_s=0.0)
    draw = random.Random(7)
    for _ in range(8):
        ids = [ask(driver, "a", 4) for _ in range(draw.randint(1, 3))]
        for job_id in ids:
            found = driver.wait_ended(job_id)
            assert found[-1].kind is EventKind.FINISHED, found[-1]
            assert found[-1].attempt == 1
        time.sleep(draw.uniform(0, 1.5))  # the steps of parking fall anywhere
    assert len(running.worker_pids()) <= 1


def test_models_that_do_not_fit_together_take_turns(small: Supervised) -> None:
    driver = small.driver
    for model_id in ("a", "b"):
        want(driver, "fake-20ms", model_id)
    jobs = [ask(driver, model_id, 30) for _ in range(4) for model_id in ("a", "b")]
    most = 0

    def all_ended() -> bool:
        nonlocal most
        most = max(most, len(small.worker_pids()))
        return all(driver.record(job_id).status.is_terminal for job_id in jobs)

    wait_until(all_ended, "all jobs of both models end", 120)
    assert {driver.record(job_id).status for job_id in jobs} == {JobStatus.FINISHED}
    assert most == 1


def test_loading_a_parked_model_starts_it_and_unloading_it_succeeds(
    driver: Driver, running: Supervised
) -> None:
    desired = want(driver, "fake", "a", ttl_s=0.0)
    driver.wait_ended(ask(driver, "a"))
    wait_parked(driver, running, "a")
    resumed = driver.desired_models.resume("a", desired.uid, new_job_id("load"), ttl_s=None)
    assert resumed is not None
    driver.submit(resumed.load, "a", job_id=resumed.load_job)
    assert driver.wait_ended(resumed.load_job)[-1].kind is EventKind.FINISHED
    driver.wait_ready("a")
    driver.desired_models.change("a", desired.uid, ttl_s=0.0)
    wait_parked(driver, running, "a")
    assert driver.wait_ended(driver.unload("a"))[-1].kind is EventKind.FINISHED


@pytest.mark.parametrize("victim", ["worker", "supervisor"])
def test_a_death_while_a_model_gives_way_loses_no_job(small: Supervised, victim: str) -> None:
    driver = small.driver
    for model_id in ("a", "b"):
        want(driver, "fake-20ms", model_id)
    first = ask(driver, "a", 200)
    driver.wait_running(first)
    pid = driver.wait_ready("a").pid
    second = ask(driver, "b", 20)
    closed = names.take_key(driver.wait_ready("a").names[0])
    wait_until(lambda: driver.redis.get(closed) == b"dead", "the model is closed", 40)
    os.kill(pid if victim == "worker" else small.supervisor_pid, signal.SIGKILL)
    if victim == "supervisor":
        small.start()
    for job_id in (first, second):
        found = driver.wait_ended(job_id, 60)
        assert_whole(found)
        assert found[-1].kind is EventKind.FINISHED, found[-1]


def test_a_model_that_waits_for_memory_for_too_long_is_answered(
    redis_url: str, tmp_path: Path
) -> None:
    limits = {"MGS_MODELS_MAX": "1", "MGS_SWAP_AFTER_S": "600", "MGS_ROOM_TIMEOUT_S": "2"}
    with supervised(redis_url, tmp_path, **limits) as running:
        driver = running.driver
        driver.load_ready("fake-20ms", "a")
        long_one = ask(driver, "a", 400)
        driver.wait_running(long_one)
        want(driver, "fake", "b")
        error = driver.wait_ended(ask(driver, "b"))[-1].error
        assert error is not None
        assert error.code == "no_room"
        assert driver.wait_ended(long_one)[-1].kind is EventKind.FINISHED


def test_a_pinned_model_is_never_parked_and_the_error_names_it(small: Supervised) -> None:
    driver = small.driver
    desired = driver.load("fake", "keeper")
    driver.wait_ended(desired.load_job)
    driver.desired_models.change("keeper", desired.uid, pinned=True)
    want(driver, "fake", "b")
    error = driver.wait_ended(ask(driver, "b"))[-1].error
    assert error is not None
    assert error.code == "insufficient_memory"
    assert "keeper" in error.message or "pinned" in error.message


def put_line(driver: Driver, model_id: str, num_tokens: int, number: int = 1) -> str:
    """Queue a line of a batch."""
    job_id = new_job_id("bline")
    driver.store.submit(
        Submission(
            job_id,
            model_id,
            generate("x" * 8, num_tokens),
            {},
            is_background=True,
            job_class="batch",
            batch="batch_1",
            line=number,
        )
    )
    driver.desired_models.notify()
    return job_id


def test_lines_give_their_models_room_to_a_person_at_once_and_go_on_later(
    redis_url: str, tmp_path: Path
) -> None:
    limits = {"MGS_MODELS_MAX": "1", "MGS_SWAP_AFTER_S": "10", "MGS_BATCH_QUIET_S": "1"}
    with supervised(redis_url, tmp_path, **limits) as running:
        driver = running.driver
        for model_id in ("a", "b"):
            want(driver, "fake-20ms", model_id)
        line = put_line(driver, "a", 400)
        driver.wait_running(line)
        wait_until(lambda: len(driver.events(line)) > 5, "the line says something")
        assert driver.wait_ended(ask(driver, "b"))[-1].kind is EventKind.FINISHED
        record = driver.record(line)
        assert (record.status, record.deaths) == (JobStatus.QUEUED, 0)
        assert record.yields >= 1
        found = driver.wait_ended(line, 60)
        assert_whole(found)
        assert found[-1].kind is EventKind.FINISHED
        assert found[-1].attempt == 2
        assert text(found) == driver.text_of(ask(driver, "a", 400))


def test_a_batch_waits_for_a_model_that_a_person_has_just_used(
    redis_url: str, tmp_path: Path
) -> None:
    limits = {"MGS_MODELS_MAX": "1", "MGS_SWAP_AFTER_S": "0", "MGS_BATCH_QUIET_S": "600"}
    with supervised(redis_url, tmp_path, **limits) as running:
        driver = running.driver
        want(driver, "fake", "a")
        driver.wait_ended(ask(driver, "a"))
        want(driver, "fake", "b")
        line = put_line(driver, "b", 8)
        # Two ticks of the supervisor, and it says that it waits.
        wait_until(
            lambda: any("b" in one.waiting for one in driver.desired_models.nodes()), "a tick"
        )
        person = ask(driver, "a")
        driver.wait_ended(person)
        assert driver.record(person).attempt == 1
        assert driver.status("b") is None
        assert driver.record(line).status is JobStatus.QUEUED
        driver.unload("a")
        assert driver.wait_ended(line)[-1].kind is EventKind.FINISHED


def test_what_a_person_waited_for_too_long_ends_and_lines_of_a_batch_wait_on(
    redis_url: str, tmp_path: Path
) -> None:
    limits = {"MGS_MODELS_MAX": "1", "MGS_SWAP_AFTER_S": "600", "MGS_ROOM_TIMEOUT_S": "2"}
    with supervised(redis_url, tmp_path, **limits) as running:
        driver = running.driver
        driver.load_ready("fake-20ms", "a")
        long_one = ask(driver, "a", 400)
        driver.wait_running(long_one)
        want(driver, "fake", "b")
        line, person = put_line(driver, "b", 8), ask(driver, "b")
        error = driver.wait_ended(person)[-1].error
        assert error is not None
        assert error.code == "no_room"
        assert driver.record(line).status is JobStatus.QUEUED
        driver.store.cancel(long_one, "enough")
        driver.unload("a")
        assert driver.wait_ended(line, 60)[-1].kind is EventKind.FINISHED


def test_jobs_on_hold_start_no_model_and_do_not_keep_one(small: Supervised) -> None:
    driver = small.driver
    for model_id in ("a", "b"):
        want(driver, "fake", model_id)
    Holds(driver.redis).hold("a", "hold", ["interactive", "batch"], "me")
    held = [ask(driver, "a"), put_line(driver, "a", 8)]
    assert driver.wait_ended(ask(driver, "b"))[-1].kind is EventKind.FINISHED
    assert driver.status("a") is None
    Holds(driver.redis).resume("a", ["interactive", "batch"])
    for job_id in held:
        assert driver.wait_ended(job_id, 60)[-1].kind is EventKind.FINISHED


@pytest.mark.parametrize("victim", ["worker", "supervisor"])
def test_a_death_while_lines_are_handed_back_loses_none(
    redis_url: str, tmp_path: Path, victim: str
) -> None:
    limits = {"MGS_MODELS_MAX": "1", "MGS_SWAP_AFTER_S": "2", "MGS_BATCH_QUIET_S": "1"}
    with supervised(redis_url, tmp_path, **limits) as running:
        driver = running.driver
        for model_id in ("a", "b"):
            want(driver, "fake-20ms", model_id)
        lines = [put_line(driver, "a", 100, number) for number in range(1, 13)]
        driver.wait_running(lines[0])
        pid = driver.wait_ready("a").pid
        person = ask(driver, "b")
        closed = names.take_key(driver.wait_ready("a").names[0])
        wait_until(lambda: driver.redis.get(closed) == b"dead", "the model is closed", 40)
        os.kill(pid if victim == "worker" else running.supervisor_pid, signal.SIGKILL)
        if victim == "supervisor":
            running.start()
        for job_id in (person, *lines):
            found = driver.wait_ended(job_id, 90)
            assert_whole(found)
            assert found[-1].kind is EventKind.FINISHED, found[-1]
        assert {driver.record(job_id).deaths for job_id in lines} <= {0, 1}
