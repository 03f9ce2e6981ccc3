"""Who waits for a model that nobody runs is told so, whoever else's supervisor is alive."""

from __future__ import annotations

from typing import Any

import pytest

from api.execution import client_job, worker_liveness
from jobs.contract.records import JobStatus
from jobs.storage import names
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_liveness, "_INTERVAL_S", 0.02)
    monkeypatch.setattr(client_job, "_FIRST_CHECK_S", 0.0)


def own(rig: Rig, node: str) -> None:
    rig.redis.set(names.owner_key("0"), f"{node}|token")


def num_looks(rig: Rig) -> int:
    found = rig.redis.info("commandstats").get("cmdstat_mget", {"calls": 0})
    return int(found["calls"])


def wait_for_looks(rig: Rig, num: int) -> None:
    before = num_looks(rig)
    wait_until(lambda: num_looks(rig) >= before + num, f"{num} looks")


def error_of(answer: Any) -> tuple[str, str]:
    error = answer.json()["error"]
    return error["code"], error["message"]


def test_without_any_supervisor_that_is_the_reason(rig: Rig) -> None:
    rig.load()
    rig.desired_models.forget_status("0")
    answer = rig.chat_soon().result()
    assert answer.status_code == 503
    assert error_of(answer) == (
        "not_ready",
        "no supervisor is running: nothing drains the queue",
    )


def test_a_supervisor_that_does_not_run_the_model_is_none_for_it(rig: Rig) -> None:
    rig.load()
    rig.desired_models.forget_status("0")
    rig.supervise()
    answer = rig.chat_soon().result()
    assert answer.status_code == 503
    assert error_of(answer) == (
        "not_ready",
        "no machine runs the model: nothing drains the queue",
    )


def test_an_owner_that_is_gone_is_none(rig: Rig) -> None:
    rig.load()
    rig.desired_models.forget_status("0")
    rig.supervise()
    own(rig, "elsewhere")
    assert error_of(rig.chat_soon().result())[0] == "not_ready"


def test_an_owner_that_is_alive_is_starting_the_worker(rig: Rig) -> None:
    desired = rig.load()
    rig.desired_models.forget_status("0")
    rig.supervise()
    own(rig, "here")
    future = rig.chat_soon()
    wait_until(rig.waiting_ids, "the job is queued")
    wait_for_looks(rig, 25)
    assert not future.done()
    rig.heartbeat(desired)
    rig.take().answer("there")
    assert future.result().status_code == 200


def test_a_worker_whose_heartbeat_cannot_be_read_is_there(rig: Rig) -> None:
    rig.load()
    rig.redis.set(names.status_key("0"), b"of another version")
    future = rig.chat_soon()
    wait_until(rig.waiting_ids, "the job is queued")
    wait_for_looks(rig, 25)
    rig.take().answer("there")
    assert future.result().status_code == 200


def test_a_stream_of_a_machine_that_is_lost_is_told_while_another_is_alive(rig: Rig) -> None:
    rig.load()
    rig.supervise()
    own(rig, "here")
    future = rig.chat_soon(stream=True)
    job = rig.take()
    job.started()
    job.chunk("Hel")
    rig.desired_models.forget_status("0")
    rig.redis.delete(names.owner_key("0"))
    assert "worker_lost" in future.result().text
    assert "no machine runs the model" in future.result().text
    wait_until(lambda: rig.record(job.job_id).status is JobStatus.FAILED, "the job has ended")
