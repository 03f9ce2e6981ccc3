"""Settling what a dead worker left when something is wrong with it, or stops on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from rq.job import Job

from jobs.contract.errors import JobError, ModelUnloadedError, WorkerLostError
from jobs.contract.events import Event, EventKind
from jobs.contract.records import JobStatus
from jobs.contract.requests import Prompt, TokenCountRequest, UnloadRequest
from jobs.storage import names
from jobs.storage.connection import SyncRedis, connect
from jobs.storage.event_log import read_log
from jobs.storage.store import JobStore
from tests.helpers.cutting import Cutter
from tests.helpers.queues import between, submit, waiting
from tests.helpers.samples import event, generate, settings_for
from tests.helpers.taking import claimed, open_attempt, take
from workers.supervision.recovery import Recovery

WORKER = "0.gen.dead"
LOST = WorkerLostError("it died")
UNLOADED = ModelUnloadedError("the model was unloaded")

Damage = Callable[[SyncRedis, str], Any]


def held(store: JobStore, request: Any = None, **fields: Any) -> str:
    """A job that the dead worker had opened."""
    job_id = submit(store, request, **fields)
    open_attempt(store.redis, WORKER, job_id)
    return job_id


def _of_another_type(key_of: Callable[[str], str]) -> Damage:
    def damage(redis: SyncRedis, job_id: str) -> None:
        redis.delete(key_of(job_id))
        redis.set(key_of(job_id), "not ours")

    return damage


def _with(key_of: Callable[[str], str], field: str, value: str) -> Damage:
    return lambda redis, job_id: redis.hset(key_of(job_id), field, value)


def _without(key_of: Callable[[str], str]) -> Damage:
    return lambda redis, job_id: redis.delete(key_of(job_id))


DAMAGES: dict[str, Damage] = {
    "record: created_at": _with(names.job_key, "created_at", "yesterday"),
    "record: status": _with(names.job_key, "status", "paused"),
    "record: attempt": _with(names.job_key, "attempt", "many"),
    "record: deaths": _with(names.job_key, "deaths", "some"),
    "record: type": _of_another_type(names.job_key),
    "record: none": _without(names.job_key),
    "RQ: created_at": _with(Job.key_for, "created_at", "yesterday"),
    "RQ: status": _with(Job.key_for, "status", "paused"),
    "RQ: type": _of_another_type(Job.key_for),
    "RQ: none": _without(Job.key_for),
    "log: type": _of_another_type(names.log_key),
    "request: type": _of_another_type(names.request_key),
    "request: none": _without(names.request_key),
}
# Of these, what the job is can still be read, so that it goes on or ends as any other.
READABLE = [name for name in DAMAGES if not name.startswith("record")]
damaged = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)


@pytest.fixture
def three(store: JobStore) -> list[str]:
    """Jobs in the dead worker's hands; something is wrong with the second one."""
    return [held(store) for _ in range(3)]


@damaged
def test_after_a_crash_one_damaged_job_keeps_no_other_from_going_on(
    store: JobStore, recovery: Recovery, three: list[str], damage: Damage
) -> None:
    damage(store.redis, three[1])
    suspects = recovery.suspects("0", [WORKER])
    assert {three[0], three[2]} <= suspects
    recovery.settle_jobs_of("0", [WORKER], LOST, has_crashed=True, suspects=suspects)
    assert {three[0], three[2]} <= set(waiting(store))
    assert claimed(store.redis) == set()
    assert set(between(store)) <= {three[1]}


@damaged
def test_after_an_unload_one_damaged_job_keeps_no_other_from_ending(
    store: JobStore, recovery: Recovery, three: list[str], damage: Damage
) -> None:
    damage(store.redis, three[1])
    recovery.settle_jobs_of("0", [WORKER], UNLOADED, has_crashed=False)
    for job_id in (three[0], three[2]):
        assert read_log(store.redis, job_id)[-1].error.code == "model_unloaded"
    assert claimed(store.redis) == set()
    assert set(waiting(store)) <= {three[1]}


@damaged
def test_a_damaged_job_that_nobody_claims_keeps_no_other_from_coming_back(
    store: JobStore, recovery: Recovery, damage: Damage
) -> None:
    """As after a loss of the claims: all lie in the intermediate list."""
    ids = [submit(store) for _ in range(3)]
    for job_id in ids:
        take(store.redis, WORKER, job_id)
    store.redis.delete(names.claims_key("0"))
    damage(store.redis, ids[1])
    recovery.settle_jobs_of("0", None, LOST, has_crashed=True)
    assert {ids[0], ids[2]} <= set(waiting(store))


@damaged
def test_a_damaged_job_that_waits_keeps_no_other_from_ending(
    store: JobStore, recovery: Recovery, damage: Damage
) -> None:
    ids = [submit(store) for _ in range(3)]
    damage(store.redis, ids[1])
    recovery.drain("0", UNLOADED, lambda: False)
    for job_id in (ids[0], ids[2]):
        assert read_log(store.redis, job_id)[-1].error.code == "model_unloaded"
    assert set(waiting(store)) <= {ids[1]}


@pytest.mark.parametrize("damage", [DAMAGES[name] for name in READABLE], ids=READABLE)
def test_a_job_whose_record_can_be_read_is_settled_whatever_else_is_wrong(
    store: JobStore, recovery: Recovery, three: list[str], damage: Damage
) -> None:
    damage(store.redis, three[1])
    recovery.settle_jobs_of("0", [WORKER], LOST, has_crashed=True, suspects=set(three))
    record = store.record(three[1])
    assert (record.status is JobStatus.QUEUED) == (three[1] in waiting(store))
    assert record.status is JobStatus.QUEUED or read_log(store.redis, three[1])[-1].is_terminal
    open_again = [job_id for job_id in three if job_id in waiting(store)]
    for job_id in open_again:
        open_attempt(store.redis, WORKER, job_id)
    recovery.settle_jobs_of("0", [WORKER], UNLOADED, has_crashed=False)
    assert store.record(three[1]).status is JobStatus.FAILED
    assert read_log(store.redis, three[1])[-1].is_terminal
    assert claimed(store.redis) == set()


def test_what_has_ended_and_waits_all_the_same_is_taken_off_its_queue(
    store: JobStore, recovery: Recovery
) -> None:
    """A worker that was taken for dead may end its job after it was given back."""
    job_id = held(store)
    recovery.settle_jobs_of("0", [WORKER], LOST, has_crashed=True)
    assert store.writer.settle(event(EventKind.FINISHED, 1, job=job_id))
    assert waiting(store) == [job_id]
    assert recovery.drain("0", UNLOADED, lambda: False), "the model is retired"
    assert waiting(store) == []
    assert store.record(job_id).status is JobStatus.FINISHED
    assert store.redis.hget(Job.key_for(job_id), "status") == b"finished"


def test_what_is_no_claim_is_swept_off_the_claims(store: JobStore, recovery: Recovery) -> None:
    job_id = held(store)
    odd = [b"", b"|", b"no bar", b"\xff\xfe|x", b"|x", b"x|"]
    store.redis.sadd(names.claims_key("0"), *odd)
    recovery.settle_jobs_of("0", None, LOST, has_crashed=True)
    assert not store.redis.exists(names.claims_key("0"))
    assert waiting(store) == [job_id]


def test_a_supervisors_death_is_no_death_of_its_workers(
    store: JobStore, recovery: Recovery
) -> None:
    """Ten in a row: a machine that loses power again and again convicts no job."""
    job_id = held(store)
    for times in range(1, 11):
        recovery.settle_jobs_of("0", None, LOST, has_crashed=True)
        record = store.record(job_id)
        assert (record.status, record.deaths) == (JobStatus.QUEUED, 0)
        assert waiting(store) == [job_id]
        assert open_attempt(store.redis, f"0.gen.{times}", job_id).deaths == 0


@pytest.mark.parametrize("num_words", [1, 7, 19])
def test_a_late_worker_that_writes_on_delays_the_end_and_does_not_prevent_it(
    store: JobStore,
    recovery: Recovery,
    monkeypatch: pytest.MonkeyPatch,
    num_words: int,
) -> None:
    """Between each look at the log and the end that is written after it."""
    job_id = held(store)
    settle, words = store.writer.settle, iter(range(1, num_words + 1))

    def speak_first(end: Event, *lists: Any) -> bool:
        seq = next(words, None)
        if seq is not None:
            assert store.writer.append([event(seq=seq, job=job_id)]) == [True]
        return settle(end, *lists)

    monkeypatch.setattr(store.writer, "settle", speak_first)
    recovery.settle_jobs_of("0", [WORKER], UNLOADED, has_crashed=False)
    found = read_log(store.redis, job_id)
    assert [said.seq for said in found] == list(range(1, num_words + 2))
    assert found[-1].error.code == "model_unloaded"
    assert claimed(store.redis) == set()
    assert store.writer.append([event(seq=99, job=job_id)]) == [False]


def test_who_never_stops_writing_keeps_its_claim_for_the_next_recovery(
    store: JobStore, recovery: Recovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless, other = held(store), held(store)
    settle, seqs = store.writer.settle, iter(range(1, 1000))

    def speak_first(end: Event, *lists: Any) -> bool:
        if end.job == endless:
            assert store.writer.append([event(seq=next(seqs), job=endless)]) == [True]
        return settle(end, *lists)

    with monkeypatch.context() as patched:
        patched.setattr(store.writer, "settle", speak_first)
        recovery.settle_jobs_of("0", [WORKER], UNLOADED, has_crashed=False)
    assert store.record(other).status is JobStatus.FAILED
    assert claimed(store.redis) == {(WORKER, endless)}
    recovery.settle_jobs_of("0", None, UNLOADED, has_crashed=False)
    assert store.record(endless).status is JobStatus.FAILED
    assert claimed(store.redis) == set()


# Cut at any command.


@dataclass(frozen=True)
class Cause:
    """One way in which a worker's jobs are settled, and what becomes of its model."""

    error: JobError
    has_crashed: bool
    is_drained: bool


CAUSES = {
    "crash": Cause(LOST, True, False),
    "unload": Cause(UNLOADED, False, True),
}


NUM_OPENED = 7


def leave_a_mess(store: JobStore) -> list[str]:
    """One job of each kind in the dead worker's hands, which come first, and some that wait."""
    silent, opted_out = held(store), held(store, generate(on_worker_loss="fail"))
    speaker = held(store)
    store.writer.append([event(EventKind.STARTED, 1, job=speaker), event(seq=2, job=speaker)])
    cancelled = held(store)
    store.cancel(cancelled, "enough")
    counted = held(store, TokenCountRequest(Prompt(text="x")))
    unload = held(store, UnloadRequest())
    ended = held(store)
    assert store.writer.settle(event(EventKind.FINISHED, 1, job=ended))
    on_its_way, stray = submit(store), submit(store)
    take(store.redis, WORKER, on_its_way)
    take(store.redis, "nobody", stray)
    store.redis.delete(names.claims_key("nobody"))
    queued = submit(store)
    return [
        silent, opted_out, speaker, cancelled, counted, unload, ended, on_its_way, stray, queued,
    ]  # fmt: skip


def settle_all(recovery: Recovery, cause: Cause, suspects: set[str]) -> None:
    recovery.settle_jobs_of(
        "0", [WORKER], cause.error, has_crashed=cause.has_crashed, suspects=suspects
    )
    if cause.is_drained:
        recovery.drain("0", cause.error, lambda: False)


def picture(store: JobStore, job_ids: list[str]) -> dict[str, Any]:
    """All that Redis knows of the jobs and of their model but for times, by the jobs' places.

    RQ's view is that of the jobs that the worker had opened: of one that waited, RQ's hash alone
    may say so until it expires.
    """
    redis, places = store.redis, {job_id: n for n, job_id in enumerate(job_ids)}
    found: dict[str, Any] = {}
    for job_id, place in places.items():
        record = store.record(job_id)
        found[f"record {place}"] = (
            record.status, record.attempt, record.deaths, record.worker, record.cancel,
            record.error_code,
        )  # fmt: skip
        found[f"log {place}"] = [
            (said.id, said.kind, said.error) for said in read_log(redis, job_id)
        ]
        if place < NUM_OPENED:
            found[f"RQ {place}"] = redis.hget(Job.key_for(job_id), "status")
        found[f"expires {place}"] = [
            redis.ttl(key(job_id)) > 0 for key in (names.job_key, names.log_key)
        ]
    for name in names.queues_of("0"):
        queue = store.queue(name)
        for kind, key in (("queue", queue.key), ("between", queue.intermediate_queue_key)):
            found[f"{kind} {name}"] = [places[i.decode()] for i in redis.lrange(key, 0, -1)]
    found["claims"] = claimed(redis)
    found["live"] = {places[i.decode()] for i in redis.zrange(names.LIVE, 0, -1)}
    found["totals"] = redis.hgetall(names.TOTALS)
    found["slugs"] = store.slugs()
    return found


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
@pytest.mark.parametrize("is_carried_out", [False, True], ids=["lost call", "lost reply"])
def test_a_recovery_cut_at_any_command_and_begun_anew_leaves_the_same(
    store: JobStore,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cause: Cause,
    is_carried_out: bool,
) -> None:
    client = connect(redis_url, retries=0)
    settings = settings_for(redis_url, tmp_path)
    recovery = Recovery(JobStore(client, settings), settings)
    cutter = Cutter(monkeypatch)
    pictures: list[dict[str, Any]] = []

    def leave_and_settle(cut_at: int | None) -> bool:
        """Whether the recovery was cut."""
        store.redis.flushdb()
        job_ids = leave_a_mess(store)
        suspects = recovery.suspects("0", [WORKER]) if cause.has_crashed else set()
        cutter.cut_at(cut_at, is_carried_out=is_carried_out)
        is_cut = False
        try:
            settle_all(recovery, cause, suspects)
        except RedisConnectionError:
            is_cut = True
            settle_all(recovery, cause, suspects)
        cutter.cut_at(None)
        pictures.append(picture(store, job_ids))
        return is_cut

    assert not leave_and_settle(None)
    while leave_and_settle(len(pictures) - 1):
        assert pictures[-1] == pictures[0], f"cut at command {len(pictures) - 2}"
    assert len(pictures) > 30, "no command was left out"
    client.close()
