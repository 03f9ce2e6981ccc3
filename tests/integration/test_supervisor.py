"""A real supervisor: loading, unloading, and workers that die."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from rq import Worker
from rq.job import Job
from rq.serializers import JSONSerializer

from jobs.contract.events import EventKind
from jobs.contract.records import JobStatus
from tests.helpers.driver import Driver, assert_whole, text, token_ids
from tests.helpers.samples import generate
from tests.helpers.supervised import Supervised
from tests.helpers.waiting import wait_until

SLOW = "fake-20ms"
LENGTH = 120


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def start_slow(driver: Driver, num_tokens: int = 5, **fields) -> tuple[str, int]:
    """A job that has sent some tokens, and the pid of its worker."""
    pid = driver.load_ready(SLOW).pid
    job_id = driver.submit(generate("k" * 8, LENGTH, **fields))
    driver.wait_running(job_id, num_tokens)
    return job_id, pid


def test_a_loaded_model_answers_and_is_marked_as_having_been_ready(driver: Driver) -> None:
    status = driver.load_ready("fake")
    assert (status.model_name, status.backend, status.slots) == ("fake", "fake", 8)
    assert driver.text_of(driver.generate("x" * 8, 8)) == "0000001 "
    wait_until(lambda: driver.desired_models.get("0").was_ready, "the desired model is marked")


def test_unloading_ends_the_process_before_its_job_is_finished(
    driver: Driver, running: Supervised
) -> None:
    pid = driver.load_ready().pid
    found = driver.wait_ended(driver.unload())
    assert found[-1].kind is EventKind.FINISHED
    assert pid not in running.worker_pids()
    assert driver.desired_models.all() == {}
    assert driver.status() is None
    assert Worker.count(driver.redis) == 0


def test_unloading_ends_running_and_waiting_jobs_with_their_reason(driver: Driver) -> None:
    driver.load_ready(SLOW)
    ids = [driver.submit(generate("z", 400)) for _ in range(10)]
    for job_id in ids[:8]:
        driver.wait_running(job_id)
    unload = driver.unload()
    for job_id in ids:
        found = driver.wait_ended(job_id)
        assert_whole(found)
        assert found[-1].error.code == "model_unloaded"
    assert driver.wait_ended(unload)[-1].kind is EventKind.FINISHED


def test_the_id_is_free_at_once_after_an_unload(driver: Driver) -> None:
    first = driver.load_ready().pid
    driver.wait_ended(driver.unload())
    second = driver.load_ready(SLOW)
    assert (second.model_name, second.pid != first) == (SLOW, True)


def test_a_broken_model_is_a_load_error_with_its_reason_and_leaves_nothing(
    driver: Driver, running: Supervised, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "broken"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    desired = driver.load("broken", backend="mlx")
    found = driver.wait_ended(desired.load_job)
    assert found[-1].kind is EventKind.FAILED
    assert found[-1].error.code == "model_load_failed"
    assert len(found[-1].error.message) > 20
    assert driver.desired_models.get("0") is None
    assert running.worker_pids() == []
    assert driver.load_ready().model_name == "fake", "the id is free again"


def test_a_model_that_is_not_there_is_a_load_error_that_names_it(driver: Driver) -> None:
    found = driver.wait_ended(driver.load("no-such-model").load_job)
    assert found[-1].error.code == "model_load_failed"
    assert "no-such-model" in found[-1].error.message


@pytest.mark.parametrize(
    "sampling", [{"temperature": 0.0}, {"temperature": 1.3, "seed": 42, "top_p": 0.95}]
)
def test_the_text_of_a_killed_worker_goes_on_as_if_nothing_had_been(
    driver: Driver, sampling: dict
) -> None:
    job_id, pid = start_slow(driver, 20, sampling=sampling)
    kill(pid)
    found = driver.wait_ended(job_id)
    assert_whole(found)
    assert found[-1].kind is EventKind.FINISHED
    assert {event.attempt for event in found} == {1, 2}
    undisturbed = driver.submit(generate("k" * 8, LENGTH, sampling=sampling))
    assert text(found) == driver.text_of(undisturbed)
    assert token_ids(found) == token_ids(driver.events(undisturbed))
    assert found[-1].usage == driver.events(undisturbed)[-1].usage
    assert driver.record(job_id).deaths == 1


def test_every_job_of_a_killed_worker_goes_on_and_the_waiting_ones_too(driver: Driver) -> None:
    pid = driver.load_ready(SLOW).pid
    ids = [driver.submit(generate("m" * 8, 40, stop=["4 "])) for _ in range(12)]
    driver.wait_running(ids[7], 4)
    kill(pid)
    for job_id in ids:
        found = driver.wait_ended(job_id)
        assert_whole(found)
        assert text(found) == "0000001 0000002 0000003 000000"
    wait_until(lambda: driver.redis.zcard("rq:wip:mgs-gen-0") == 0, "RQ has seen them end")
    assert driver.redis.llen("rq:queue:mgs-gen-0:intermediate") == 0


def test_a_job_that_kills_two_workers_is_given_up_with_its_reason(driver: Driver) -> None:
    job_id, pid = start_slow(driver)
    kill(pid)
    second = driver.wait_ready(other_than=[pid]).pid
    wait_until(lambda: driver.events(job_id)[-1].attempt == 2, "the second attempt is open")
    kill(second)
    found = driver.wait_ended(job_id)
    assert_whole(found)
    assert found[-1].error.code == "worker_lost"
    assert "SIGKILL" in found[-1].error.message
    third = driver.wait_ready(other_than=[pid, second])
    assert driver.text_of(driver.generate("x" * 8, 8)) == "0000001 "
    assert driver.status().pid == third.pid
    job = Job.fetch(job_id, driver.redis, JSONSerializer)
    assert (job.get_status(), job_id in job.failed_job_registry) == ("failed", True)


def test_a_job_may_opt_out_of_going_on(driver: Driver) -> None:
    job_id, pid = start_slow(driver, on_worker_loss="fail")
    kill(pid)
    found = driver.wait_ended(job_id)
    assert_whole(found)
    assert found[-1].error.code == "worker_lost"
    assert {event.attempt for event in found} == {1}


def test_a_job_cancelled_while_its_worker_is_dead_is_cancelled(driver: Driver) -> None:
    job_id, pid = start_slow(driver)
    os.kill(pid, signal.SIGSTOP)
    driver.store.cancel(job_id, "its client left")
    kill(pid)
    found = driver.wait_ended(job_id)
    assert_whole(found)
    assert found[-1].kind is EventKind.CANCELLED
    assert found[-1].error.message == "its client left"


def test_a_worker_killed_while_it_loads_is_started_again(
    driver: Driver, running: Supervised
) -> None:
    desired = driver.load("fake")
    (pid,) = wait_until(running.worker_pids, "a worker process is there")
    kill(pid)
    assert driver.wait_ended(desired.load_job)[-1].kind is EventKind.FINISHED
    assert driver.wait_ready().pid != pid
    assert driver.desired_models.get("0").uid == desired.uid


def test_a_model_that_kills_its_worker_twice_while_loading_is_given_up(
    driver: Driver, running: Supervised
) -> None:
    desired, seen = driver.load("fake"), []
    for _ in range(2):
        (pid,) = wait_until(
            lambda: [pid for pid in running.worker_pids() if pid not in seen], "a new worker"
        )
        os.kill(pid, signal.SIGSTOP)
        seen.append(pid)
        kill(pid)
    found = driver.wait_ended(desired.load_job)
    assert found[-1].error.code == "model_load_failed"
    assert driver.desired_models.get("0") is None


def test_a_model_whose_worker_is_killed_as_soon_as_it_is_ready_stays_wanted(
    driver: Driver,
) -> None:
    """Twice: a model that has been ready is never given up as one that cannot be loaded."""
    pids = [driver.load_ready().pid]
    for _ in range(2):
        kill(pids[-1])
        pids.append(driver.wait_ready(other_than=pids).pid)
    assert driver.text_of(driver.generate("x" * 8, 8)) == "0000001 "


def test_rq_forgets_a_killed_worker_at_once(driver: Driver) -> None:
    pid = driver.load_ready().pid
    before = {worker.name for worker in Worker.all(driver.redis, serializer=JSONSerializer)}
    kill(pid)
    driver.wait_ready(other_than=[pid])
    after = {worker.name for worker in Worker.all(driver.redis, serializer=JSONSerializer)}
    assert len(after) == 3
    assert not before & after


def test_jobs_queued_for_a_model_that_nobody_wants_are_ended(driver: Driver) -> None:
    job_id = driver.submit(generate(), "nobody")
    found = driver.wait_ended(job_id)
    assert [event.kind for event in found] == [EventKind.FAILED]
    assert found[0].error.code == "model_unloaded"


def test_one_models_death_does_not_touch_another(driver: Driver) -> None:
    driver.load(SLOW, "1")
    job_id, pid = start_slow(driver)
    driver.wait_ready("1")
    neighbour = driver.submit(generate("n" * 8, 60), "1")
    driver.wait_running(neighbour)
    kill(pid)
    assert driver.text_of(neighbour) == "".join(f"{n:07d} " for n in range(1, 9))[:60]
    assert {event.attempt for event in driver.events(neighbour)} == {1}
    driver.wait_ended(job_id)


def test_a_stopped_worker_hands_its_jobs_on_without_counting_a_death(driver: Driver) -> None:
    job_id, pid = start_slow(driver, sampling={"ignore_eos": True})
    os.kill(pid, signal.SIGTERM)
    found = driver.wait_ended(job_id)
    assert_whole(found)
    assert found[-1].kind is EventKind.FINISHED
    assert {event.attempt for event in found} == {1, 2}
    assert driver.record(job_id).deaths == 0
    assert driver.record(job_id).status is JobStatus.FINISHED
    wait_until(lambda: driver.redis.zcard("rq:wip:mgs-gen-0") == 0, "RQ has seen it end")
