"""Settling what a dead worker left: all of it, however often it is begun anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import Worker
from rq.job import Job
from rq.serializers import JSONSerializer

from jobs.contract.errors import ModelUnloadedError, ShuttingDownError, WorkerLostError
from jobs.contract.events import EventKind
from jobs.contract.records import JobStatus
from jobs.contract.requests import Prompt, TokenCountRequest, UnloadRequest
from jobs.storage import names
from jobs.storage.event_log import read_log
from jobs.storage.store import JobStore
from tests.helpers.consumer_rig import running_consumer
from tests.helpers.queues import waiting
from tests.helpers.samples import event, generate, submission
from tests.helpers.taking import claimed, open_attempt, take
from workers.generation.attempts import AttemptOpener
from workers.supervision.recovery import Recovery

WORKER = "0.gen.dead"
LOST = WorkerLostError("it died")


def held(store: JobStore, request=None, **fields) -> str:
    """A job that the dead worker had taken."""
    new = submission(request, **fields)
    store.submit(new)
    open_attempt(store.redis, WORKER, new.job_id)
    return new.job_id


def settle_jobs_of(recovery: Recovery, error=LOST, *, has_crashed: bool = True) -> None:
    suspects = recovery.suspects("0", [WORKER]) if has_crashed else set()
    recovery.settle_jobs_of("0", [WORKER], error, has_crashed=has_crashed, suspects=suspects)


def test_every_held_job_goes_back_before_those_that_wait(
    store: JobStore, recovery: Recovery
) -> None:
    ids = {held(store) for _ in range(3)}
    later = submission()
    store.submit(later)
    settle_jobs_of(recovery)
    assert set(waiting(store)[:3]) == ids
    assert waiting(store)[3:] == [later.job_id]
    for job_id in ids:
        record = store.record(job_id)
        assert (record.status, record.deaths, record.worker) == (JobStatus.QUEUED, 1, "")
        assert Job.fetch(job_id, store.redis, JSONSerializer).get_status() == "queued"
    assert claimed(store.redis) == set()


def test_a_recovery_that_was_cut_short_counts_no_job_twice(
    store: JobStore, recovery: Recovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = {held(store) for _ in range(3)}
    forget, calls = recovery._rq.forget, []

    def cut(*args: str) -> None:
        calls.append(args)
        if len(calls) == 1:
            raise RedisConnectionError("away")
        forget(*args)

    monkeypatch.setattr(recovery._rq, "forget", cut)
    suspects = recovery.suspects("0", [WORKER])
    assert suspects == ids
    with pytest.raises(RedisConnectionError):
        recovery.settle_jobs_of("0", [WORKER], LOST, has_crashed=True, suspects=suspects)
    recovery.settle_jobs_of("0", [WORKER], LOST, has_crashed=True, suspects=suspects)
    assert sorted(waiting(store)) == sorted(ids)
    assert [store.record(job_id).deaths for job_id in ids] == [1, 1, 1]


def test_a_second_death_is_the_end(store: JobStore, recovery: Recovery) -> None:
    job_id = held(store)
    settle_jobs_of(recovery)
    open_attempt(store.redis, WORKER, job_id)
    store.writer.append([event(EventKind.STARTED, 1, 2, job_id)])
    settle_jobs_of(recovery)
    assert waiting(store) == []
    found = read_log(store.redis, job_id)
    assert [(str(said.id), said.kind) for said in found] == [
        ("2-1", EventKind.STARTED), ("2-2", EventKind.FAILED),
    ]  # fmt: skip
    assert found[-1].error.code == "worker_lost"


@pytest.mark.parametrize(
    ("request_of", "has_crashed", "error", "is_returned"),
    [
        (generate(on_worker_loss="fail"), True, LOST, False),
        (generate(on_worker_loss="fail"), False, ShuttingDownError("x"), True),
        (generate(), False, ShuttingDownError("x"), True),
        (generate(), False, ModelUnloadedError("x"), False),
        (TokenCountRequest(Prompt(text="x")), True, LOST, True),
        (TokenCountRequest(Prompt(text="x")), False, ShuttingDownError("x"), False),
    ],
)
def test_what_becomes_of_a_job_depends_on_it_and_on_the_death(
    store: JobStore, recovery: Recovery, request_of, has_crashed, error, is_returned
) -> None:
    job_id = held(store, request_of)
    settle_jobs_of(recovery, error, has_crashed=has_crashed)
    record = store.record(job_id)
    if is_returned:
        assert record.status is JobStatus.QUEUED
        assert record.deaths == int(has_crashed)
    else:
        assert (record.status, record.error_code) == (JobStatus.FAILED, error.code)
        job = Job.fetch(job_id, store.redis, JSONSerializer)
        assert job_id in job.failed_job_registry
        assert error.message in job.latest_result().exc_string


def test_an_unload_is_done_when_its_process_is_gone(store: JobStore, recovery: Recovery) -> None:
    for has_crashed in (True, False):
        job_id = held(store, UnloadRequest())
        settle_jobs_of(recovery, ModelUnloadedError("x"), has_crashed=has_crashed)
        assert read_log(store.redis, job_id)[-1].kind is EventKind.FINISHED
        assert Job.fetch(job_id, store.redis, JSONSerializer).get_status() == "finished"


def test_a_cancelled_job_of_a_dead_worker_is_cancelled(store: JobStore, recovery: Recovery) -> None:
    job_id = held(store)
    store.cancel(job_id, "enough")
    settle_jobs_of(recovery)
    assert read_log(store.redis, job_id)[-1].error.message == "enough"
    assert store.record(job_id).status is JobStatus.CANCELLED
    assert waiting(store) == []


def test_a_job_that_had_ended_is_closed_in_rq_too(
    redis_url: str, tmp_path: Path, recovery: Recovery
) -> None:
    """Its end is in the log, and its worker died before it could tell RQ."""
    with running_consumer(redis_url, tmp_path) as rig:
        job_id = rig.submit()
        rig.take_begun()
        assert AttemptOpener(rig.redis, rig.consumer.name).open(job_id)
        assert rig.store.writer.settle(event(EventKind.FINISHED, 1, job=job_id))
        key = Job.key_for(job_id)
        assert (rig.redis.hget(key, "status"), rig.redis.ttl(key)) == (b"started", -1)
        recovery.settle_jobs_of("0", [rig.consumer.name], LOST, has_crashed=True)
        assert rig.redis.hget(key, "status") == b"finished"
        assert rig.redis.ttl(key) > 0
        assert [said.kind for said in read_log(rig.redis, job_id)] == [EventKind.FINISHED]


def test_a_dead_worker_and_its_executions_leave_rqs_lists(
    redis_url: str, tmp_path: Path, recovery: Recovery
) -> None:
    with running_consumer(redis_url, tmp_path, slots=1) as rig:  # takes nothing back
        job_id = rig.submit()
        rig.take_begun()
        assert AttemptOpener(rig.redis, rig.consumer.name).open(job_id)
        recovery.settle_jobs_of("0", [rig.consumer.name], LOST, has_crashed=True)
        assert Worker.count(rig.redis) == 0
        left = [key.decode() for key in rig.redis.keys("rq:*")]
        assert not [key for key in left if "execution" in key or "wip" in key or "worker" in key]


def test_what_never_reached_the_worker_goes_back_unharmed(
    store: JobStore, recovery: Recovery
) -> None:
    new, ended = submission(), submission()
    for one in (new, ended):
        store.submit(one)
    store.cancel(ended.job_id, "over")
    queue = store.queue("mgs-gen-0")
    store.redis.delete(queue.key)
    store.redis.rpush(queue.intermediate_queue_key, new.job_id, ended.job_id, "cmpl-unknown")
    settle_jobs_of(recovery)
    assert waiting(store) == [new.job_id]
    assert store.record(new.job_id).deaths == 0
    left = store.redis.lrange(queue.intermediate_queue_key, 0, -1)
    assert left == [b"cmpl-unknown"], "an id without a record is not ours to take away"


def test_what_the_worker_had_taken_and_not_opened_goes_back_unharmed(
    store: JobStore, recovery: Recovery
) -> None:
    new = submission()
    store.submit(new)
    take(store.redis, WORKER, new.job_id)
    settle_jobs_of(recovery)
    assert waiting(store) == [new.job_id]
    assert store.record(new.job_id).deaths == 0
    assert claimed(store.redis) == set()
    assert store.redis.llen(store.queue("mgs-gen-0").intermediate_queue_key) == 0


def test_only_the_jobs_that_were_waiting_are_ended(store: JobStore, recovery: Recovery) -> None:
    """A load that comes meanwhile queues a job of its own, which must live."""
    old, other = submission(), submission(TokenCountRequest(Prompt(text="x")))
    for one in (old, other):
        store.submit(one)
    snapshot = recovery.waiting("0")
    new = submission()
    store.submit(new)
    recovery.end_waiting(snapshot, ModelUnloadedError("gone"))
    assert waiting(store) == [new.job_id]
    assert waiting(store, "mgs-ctl-0") == []
    for one in (old, other):
        assert store.record(one.job_id).error_code == "model_unloaded"


def test_a_broken_record_keeps_no_other_job_from_being_settled(
    store: JobStore, recovery: Recovery
) -> None:
    broken, healthy = held(store), held(store)
    store.redis.hset(names.job_key(broken), "deaths", "many")
    settle_jobs_of(recovery)
    assert healthy in waiting(store)
    assert claimed(store.redis) == set()
