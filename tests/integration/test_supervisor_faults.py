"""Supervisors that die, restart, or are two; and a Redis that goes away under them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
from rq.registry import StartedJobRegistry

from jobs.contract.events import EventKind
from jobs.contract.records import JobStatus
from jobs.storage import names
from tests.helpers.driver import Driver, assert_whole, text, token_ids
from tests.helpers.private_redis import private_redis
from tests.helpers.samples import generate
from tests.helpers.supervised import Supervised, supervised
from tests.helpers.waiting import wait_until

SLOW = "fake-20ms"
COUNTING = "".join(f"{number:07d} " for number in range(1, 60))


@pytest.fixture
def running(redis_url: str, tmp_path: Path) -> Iterator[Supervised]:
    found = Supervised(redis_url, tmp_path)
    yield found
    found.stop()


def start_slow(driver: Driver, num_tokens: int = 5, length: int = 120) -> tuple[str, int]:
    pid = driver.load_ready(SLOW).pid
    job_id = driver.submit(generate("k" * 8, length))
    driver.wait_running(job_id, num_tokens)
    return job_id, pid


def test_a_killed_supervisor_takes_its_workers_along_and_its_successor_goes_on(
    driver: Driver, running: Supervised
) -> None:
    first = running.start()
    job_id, pid = start_slow(driver)
    running.worker_pids()
    first.kill()
    first.wait(10)
    wait_until(lambda: pid not in running.worker_pids(), "the orphan has ended itself")
    running.start()
    found = driver.wait_ended(job_id)
    assert_whole(found)
    assert text(found) == COUNTING[:120]
    assert {event.attempt for event in found} == {1, 2}
    assert driver.wait_ready(other_than=[pid]).desired_uid == driver.desired_models.get("0").uid


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_supervisor_and_workers_and_keeps_what_is_wanted(
    driver: Driver, running: Supervised, signum: signal.Signals
) -> None:
    supervisor = running.start()
    job_id, pid = start_slow(driver)
    running.worker_pids()
    supervisor.send_signal(signum)
    assert supervisor.wait(5) == 0
    assert not psutil.pid_exists(pid)
    assert driver.record(job_id).status is JobStatus.QUEUED
    assert driver.desired_models.get("0") is not None
    assert driver.desired_models.nodes() == []
    running.start()
    found = driver.wait_ended(job_id)
    assert_whole(found)
    assert text(found) == COUNTING[:120]
    assert driver.record(job_id).deaths == 0


def test_a_stopped_supervisor_leaves_its_models_free_for_the_next(
    driver: Driver, running: Supervised
) -> None:
    supervisor = running.start()
    driver.load_ready()
    supervisor.terminate()
    assert supervisor.wait(10) == 0
    assert driver.redis.keys("mgs:owner:*") == []


def test_a_job_that_goes_on_after_a_stop_is_not_given_away_by_rq(
    driver: Driver, running: Supervised
) -> None:
    """A left-over execution in the started registry would be taken for an abandoned job."""
    supervisor = running.start()
    job_id, _pid = start_slow(driver, length=300)
    supervisor.terminate()
    supervisor.wait(10)
    running.start()
    wait_until(lambda: driver.events(job_id)[-1].attempt == 2, "it goes on")
    registry = StartedJobRegistry("mgs-gen-0", driver.redis)
    wait_until(lambda: driver.redis.zcard(registry.key), "RQ knows that it runs")
    assert driver.redis.zcard(registry.key) == 1
    driver.store.cancel(job_id, "seen")
    driver.wait_ended(job_id)


def test_of_two_supervisors_only_one_runs_a_model(driver: Driver, running: Supervised) -> None:
    running.start()
    running.start()
    driver.load_ready()
    wait_until(lambda: driver.desired_models.get("0").was_ready, "a supervisor has looked again")
    assert len(running.worker_pids()) == 1
    in_rq = "rq:workers:mgs-gen-0"
    wait_until(lambda: driver.redis.exists(in_rq), "RQ knows the worker")
    assert driver.redis.scard(in_rq) == 1


def holder(driver: Driver) -> tuple[str, str]:
    """Uid and token in the model's lock."""
    uid, _, token = driver.redis.get(names.owner_key("0")).decode().partition("|")
    return uid, token


def test_a_killed_supervisors_successor_in_its_folder_is_the_same_node(
    driver: Driver, running: Supervised
) -> None:
    first = running.start()
    pid = driver.load_ready().pid
    uid, token = holder(driver)
    running.worker_pids()
    first.kill()
    first.wait(10)
    running.start()
    driver.wait_ready(other_than=[pid])
    assert holder(driver)[0] == uid
    assert holder(driver)[1] != token
    assert [node.uid for node in driver.desired_models.nodes()] == [uid]


def test_two_supervisors_on_one_machine_are_two_nodes(driver: Driver, running: Supervised) -> None:
    """Their names are alike, and so might be their process ids in two containers."""
    processes = [running.start(), running.start()]
    nodes = driver.desired_models.nodes()
    assert {node.pid for node in nodes} == {process.pid for process in processes}
    assert len({node.uid for node in nodes}) == 2
    assert len({node.node for node in nodes}) == 1


def test_a_supervisor_whose_uid_another_uses_takes_a_new_one_and_keeps_it(
    driver: Driver, running: Supervised
) -> None:
    """A machine that was cloned with its state folder, and booted since."""
    first = running.start()
    (status,) = driver.desired_models.nodes()
    first.terminate()
    first.wait(10)
    uids = []
    for _ in range(2):
        driver.desired_models.heartbeat_node(
            msgspec.structs.replace(status, token="another", pid=1)
        )
        process = running.start()
        uids += [node.uid for node in driver.desired_models.nodes() if node.pid == process.pid]
        process.terminate()
        process.wait(10)
    assert uids[0] == uids[1] != status.uid


def test_the_second_supervisor_takes_over_from_a_killed_one(
    driver: Driver, running: Supervised
) -> None:
    first = running.start()
    job_id, pid = start_slow(driver)
    running.start()
    running.worker_pids()
    first.kill()
    first.wait(10)
    found = driver.wait_ended(job_id)
    assert_whole(found)
    assert text(found) == COUNTING[:120]
    wait_until(lambda: pid not in running.worker_pids(), "the orphan has ended itself")
    assert len(running.worker_pids()) == 1


def test_an_unreadable_desired_model_keeps_no_other_model_from_loading(
    driver: Driver, running: Supervised
) -> None:
    driver.redis.hset("mgs:desired", "odd", b'{"v": "from the future"}')
    running.start()
    assert driver.load_ready().model_name == "fake"
    assert [node.num_workers for node in driver.desired_models.nodes()]


def test_a_restarted_redis_costs_no_token_and_no_worker(tmp_path: Path) -> None:
    with private_redis(is_kept=True) as server, supervised(server.url, tmp_path) as running:
        driver = running.driver
        job_id, pid = start_slow(driver, length=160)
        server.kill()
        server.start()
        found = driver.wait_ended(job_id)
        assert_whole(found)
        assert text(found) == COUNTING[:160]
        assert {event.attempt for event in found} == {1}
        assert driver.wait_ready().pid == pid
        assert driver.text_of(driver.submit(generate("x" * 8, 8))) == "0000001 "


def test_a_full_redis_delays_a_stream_but_drops_nothing(tmp_path: Path) -> None:
    with private_redis() as server, supervised(server.url, tmp_path) as running:
        driver = running.driver
        job_id, pid = start_slow(driver, length=160)
        driver.redis.config_set("maxmemory", "1")
        before = len(token_ids(driver.events(job_id)))
        wait_until(lambda: "refuses events" in running.log.read_text(), "it could not write")
        driver.redis.config_set("maxmemory", "0")
        found = driver.wait_ended(job_id)
        assert_whole(found)
        assert text(found) == COUNTING[:160]
        assert before < 160
        assert driver.status().pid == pid


def test_a_redis_that_forgets_everything_costs_the_job_but_not_the_model(
    driver: Driver, running: Supervised
) -> None:
    running.start()
    job_id, pid = start_slow(driver)
    uid = driver.desired_models.get("0").uid
    driver.redis.flushall()
    # The supervisor may mark the model as ready meanwhile: the uid says that it is the same.
    found = wait_until(lambda: driver.desired_models.get("0"), "the model is wanted again")
    assert found.uid == uid
    assert driver.redis.exists(f"mgs:job:{job_id}") == 0
    done = driver.wait_ended(driver.generate("x" * 8, 8))
    assert done[-1].kind is EventKind.FINISHED
    assert driver.wait_ready().pid == pid
    wait_until(lambda: driver.status().running == 0, "the slot is free")
    assert running.worker_pids() == [pid]


def test_a_second_loss_is_a_loss_again_and_an_unload_is_none(
    driver: Driver, running: Supervised
) -> None:
    running.start()
    pid = driver.load_ready().pid
    for _ in range(2):
        driver.redis.flushall()
        wait_until(lambda: driver.desired_models.get("0"), "the model is wanted again")
    driver.unload()
    wait_until(lambda: pid not in running.worker_pids(), "the worker has ended")
    driver.redis.flushall()
    wait_until(driver.desired_models.nodes, "the supervisor goes on")
    wait_until(lambda: driver.redis.exists("mgs:storage"), "it has noticed the loss")
    assert driver.desired_models.get("0") is None


def test_a_worker_without_its_supervisors_lifeline_ends(
    driver: Driver, running: Supervised
) -> None:
    supervisor = running.start()
    pid = driver.load_ready().pid
    running.worker_pids()
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait(10)
    wait_until(lambda: not psutil.pid_exists(pid), "the worker has noticed", 5)
