"""What a worker's death means for its jobs and its model: the same, however often it is begun."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from jobs.contract.errors import ErrorInfo, NoRoomError
from jobs.contract.events import EventKind
from jobs.contract.records import DesiredModel, JobStatus, WorkerState, WorkerStatus
from jobs.contract.requests import LoadRequest, UnloadRequest
from jobs.storage import names
from jobs.storage.connection import SyncRedis, connect
from jobs.storage.desired_models import DesiredModels
from jobs.storage.event_log import read_log
from jobs.storage.store import JobStore
from tests.helpers.children import DESIRED, ended_child, killed_child
from tests.helpers.cutting import Cutter
from tests.helpers.samples import event, settings_for, submission
from tests.helpers.taking import claimed, open_attempt
from workers.exits import ExitCode
from workers.supervision.crash_policy import CrashPolicy
from workers.supervision.recovery import Recovery
from workers.supervision.restarts import RestartPolicy
from workers.supervision.worker_process import Child


class Rig:
    """A supervisor's rule about deaths, over a client whose connection may be cut."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        settings = settings_for(redis_url, folder)
        self.redis: SyncRedis = connect(redis_url)
        self.store = JobStore(self.redis, settings)
        self.desired_models = DesiredModels(self.redis)
        self.cut_redis: SyncRedis = connect(redis_url, retries=0)
        self.restarts = RestartPolicy()
        recovery = Recovery(JobStore(self.cut_redis, settings), settings)
        self.crash_policy = CrashPolicy(DesiredModels(self.cut_redis), recovery, self.restarts)

    def submit(self, request: Any = None, **fields: Any) -> str:
        new = submission(request, **fields)
        self.store.submit(new)
        return new.job_id

    def open(self, child: Child, *, has_spoken: bool) -> str:
        """A job in the hands of the child's worker."""
        job_id = self.submit()
        attempt = open_attempt(self.redis, child.worker_names[0], job_id).attempt
        if has_spoken:
            said = [event(EventKind.STARTED, 1, attempt, job_id), event(seq=2, job=job_id)]
            assert all(self.store.writer.append(said))
        return job_id

    def settle_begun_anew(self, child: Child) -> bool:
        """As a supervisor does; whether it had to begin anew."""
        try:
            self.crash_policy.settle(child)
        except RedisConnectionError:
            self.crash_policy.settle(child)
            return True
        return False


@pytest.fixture
def rig(redis_url: str, tmp_path: Path) -> Iterator[Rig]:
    found = Rig(redis_url, tmp_path)
    yield found
    for client in (found.redis, found.cut_redis):
        client.close()


@pytest.mark.parametrize("is_carried_out", [False, True], ids=["lost call", "lost reply"])
def test_a_death_whose_settling_is_cut_at_any_command_counts_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, is_carried_out: bool
) -> None:
    """Who is suspected is asked once: a settling that is begun anew finds fewer jobs."""
    cutter, num_cuts = Cutter(monkeypatch), 0
    while True:
        rig.redis.flushdb()
        assert rig.desired_models.put("0", DESIRED)
        child = killed_child()
        silent = [rig.open(child, has_spoken=False) for _ in range(2)]
        spoken = [rig.open(child, has_spoken=True) for _ in range(2)]
        crashes = rig.restarts.num_crashes("0")
        cutter.cut_at(num_cuts, is_carried_out=is_carried_out)
        is_cut = rig.settle_begun_anew(child)
        cutter.cut_at(None)
        records = [rig.store.record(job_id) for job_id in silent + spoken]
        assert [record.deaths for record in records] == [1, 1, 0, 0], f"cut at {num_cuts}"
        assert {record.status for record in records} == {JobStatus.QUEUED}
        assert rig.store.queue("mgs-gen-0").get_job_ids() == spoken + silent
        assert claimed(rig.redis) == set()
        assert rig.restarts.num_crashes("0") == crashes + 1
        if not is_cut:
            break
        num_cuts += 1
    assert num_cuts > 20, "no command was left out"


@pytest.mark.parametrize("is_carried_out", [False, True], ids=["lost call", "lost reply"])
def test_an_unload_whose_settling_is_cut_at_any_command_ends_every_job_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, is_carried_out: bool
) -> None:
    cutter, num_cuts = Cutter(monkeypatch), 0
    while True:
        rig.redis.flushdb()
        child = killed_child()
        held, waits = rig.open(child, has_spoken=True), rig.submit()
        unload = rig.submit(UnloadRequest(), job_id=names.unload_job_id(DESIRED.uid))
        cutter.cut_at(num_cuts, is_carried_out=is_carried_out)
        is_cut = rig.settle_begun_anew(child)
        cutter.cut_at(None)
        codes = [rig.store.record(job_id).error_code for job_id in (held, waits)]
        assert codes == ["model_unloaded", "model_unloaded"], f"cut at {num_cuts}"
        assert rig.store.record(unload).status is JobStatus.FINISHED
        assert claimed(rig.redis) == set()
        assert rig.store.slugs() == set()
        ends = rig.redis.hgetall(names.TOTALS)
        assert sorted(ends.values()) == [b"1", b"2"], "each end is counted once"
        if not is_cut:
            break
        num_cuts += 1
    assert num_cuts > 20, "no command was left out"


def test_an_unload_is_not_over_before_the_process_is_forgotten(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who hears of its end asks for what is loaded."""
    child = killed_child()
    rig.desired_models.heartbeat(
        "0", WorkerStatus("0", WorkerState.READY, child.pid, "box", child.worker_names)
    )
    unload = rig.submit(UnloadRequest(), job_id=names.unload_job_id(DESIRED.uid))
    seen: list[bool] = []
    writer = rig.crash_policy._recovery._store.writer
    settle = writer.settle

    def look_first(*args: Any) -> bool:
        seen.append(bool(rig.redis.exists(names.status_key("0"))))
        return settle(*args)

    monkeypatch.setattr(writer, "settle", look_first)
    rig.crash_policy.settle(child)
    assert rig.store.record(unload).status is JobStatus.FINISHED
    assert seen == [False]


def test_of_a_desired_model_that_is_under_the_same_id_by_now_nothing_is_ended(rig: Rig) -> None:
    child = killed_child()
    newer = DesiredModel("0", "newer", LoadRequest("fake", "fake"), "load-2", 2.0)
    assert rig.desired_models.put("0", newer)
    load = rig.submit(newer.load, job_id=newer.load_job)
    waits = rig.submit()
    unload = rig.submit(UnloadRequest(), job_id=names.unload_job_id(DESIRED.uid))
    rig.crash_policy.settle(child)
    statuses = [rig.store.record(job_id).status for job_id in (load, waits, unload)]
    assert statuses == [JobStatus.QUEUED, JobStatus.QUEUED, JobStatus.FINISHED]


# A load that fails.


def failed_load(
    rig: Rig, desired: DesiredModel, *, has_said_why: bool = True, param: str | None = None
) -> Child:
    """A worker that could not load the model, of which its last heartbeat has the reason."""
    assert rig.desired_models.put("0", desired)
    child = ended_child(ExitCode.LOAD_FAILED, desired)
    if has_said_why:
        why = ErrorInfo("model_load_failed", "the file is cut short", param)
        rig.desired_models.heartbeat(
            "0",
            WorkerStatus("0", WorkerState.STOPPING, 1, "box", child.worker_names, error=why),
        )
    return child


def error_of(rig: Rig, job_id: str) -> tuple[str, str]:
    error = read_log(rig.redis, job_id)[-1].error
    return error.code, error.message


def test_a_model_that_was_ready_and_does_not_load_is_tried_again_and_nobody_waits_for_it(
    rig: Rig,
) -> None:
    child = failed_load(rig, DESIRED, param="llm_model_name")
    job_id = rig.submit()
    rig.crash_policy.settle(child)
    code, message = error_of(rig, job_id)
    assert (code, "the file is cut short" in message) == ("model_load_failed", True)
    assert rig.desired_models.get("0").uid == DESIRED.uid
    assert rig.restarts.totals == {"0": 1}, "the next try may have to wait"


def test_jobs_wait_for_a_model_whose_load_failed_for_lack_of_memory(rig: Rig) -> None:
    child = failed_load(rig, DESIRED)
    job_id = rig.submit()
    rig.crash_policy.settle(child)
    assert rig.store.record(job_id).status is JobStatus.QUEUED
    assert rig.crash_policy.last_failure("0") == "the file is cut short"
    rig.crash_policy.refuse("0", DESIRED, NoRoomError("the model waited 300 s for memory"))
    assert error_of(rig, job_id)[0] == "no_room"
    assert rig.desired_models.get("0").is_parked


@pytest.mark.parametrize("has_said_why", [True, False])
def test_a_model_that_was_never_ready_and_does_not_load_is_given_up(
    rig: Rig, has_said_why: bool
) -> None:
    new = msgspec.structs.replace(DESIRED, was_ready=False)
    child = failed_load(rig, new, has_said_why=has_said_why)
    load, job_id = rig.submit(new.load, job_id=new.load_job), rig.submit()
    rig.crash_policy.settle(child)
    for ended in (load, job_id):
        code, message = error_of(rig, ended)
        assert code == "model_load_failed"
        assert ("the file is cut short" in message) == has_said_why
    assert rig.desired_models.get("0") is None
    assert rig.restarts.totals == {}


@pytest.mark.parametrize("code", [ExitCode.LOAD_FAILED, ExitCode.CRASHED])
def test_a_death_whose_desired_model_cannot_be_read_ends_its_jobs_and_leaves_the_entry(
    rig: Rig, code: ExitCode
) -> None:
    """It may well be the worker's own model: whoever can read it decides."""
    child = ended_child(code)
    job_id = rig.open(child, has_spoken=False)
    rig.redis.hset(names.DESIRED_MODELS, "0", b"no desired model")
    rig.crash_policy.settle(child)
    assert rig.redis.hget(names.DESIRED_MODELS, "0") == b"no desired model"
    assert claimed(rig.redis) == set()
    assert rig.restarts.totals == {"0": 1}
    is_load = code is ExitCode.LOAD_FAILED
    expected = JobStatus.FAILED if is_load else JobStatus.QUEUED
    assert rig.store.record(job_id).status is expected
