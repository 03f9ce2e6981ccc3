"""Batches in Redis and on disk: who may change them, and what outlives what."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastapi import FastAPI

from api.batches.held_batch import HeldBatch, LeaseLostError
from api.batches.lines.job_ids import LineJobIds
from api.batches.workplace import Workplace
from api.execution.services import Services
from jobs.batches.errors import BatchNotFoundError, BatchStateError
from jobs.batches.line_jobs import LineJobs
from jobs.batches.records import BatchRecord, BatchStatus, LineCounts
from jobs.batches.store import BatchStore, new_batch_id
from jobs.contract.errors import DiskFullError
from jobs.settings import Settings
from jobs.storage import names, object_names
from jobs.storage.connection import SyncRedis

_LEASE_S = 10.0


@pytest.fixture
def batches(settings: Settings, redis: SyncRedis) -> BatchStore:
    return BatchStore(settings, redis)


def _record(**fields: Any) -> BatchRecord:
    now = int(time.time())
    values = {"endpoint": "/v1/completions", "created_at": now, "expires_at": now + 3600}
    return BatchRecord(id=new_batch_id(), **{**values, **fields})


def _create(batches: BatchStore, **fields: Any) -> BatchRecord:
    def add_input(folder: Path) -> None:
        (folder / "input.jsonl").write_bytes(b"{}\n")

    return batches.create(_record(**fields), add_input)


def _changed(record: BatchRecord, **fields: Any) -> BatchRecord:
    return msgspec.structs.replace(record, **fields)


def test_a_batch_is_read_from_disk_when_redis_has_lost_it(
    batches: BatchStore, redis: SyncRedis
) -> None:
    made = [_create(batches, caller="a") for _ in range(3)]
    redis.flushall()
    assert batches.get(made[0].id) == made[0]
    found, has_more = batches.page("a", "openai", limit=2)
    assert ([one.id for one in found], has_more) == ([made[2].id, made[1].id], True)
    assert batches.active() == [one.id for one in made]


def test_pages_go_in_both_directions(batches: BatchStore) -> None:
    ids = [_create(batches, caller="a").id for _ in range(5)][::-1]
    _create(batches, caller="b")
    after, has_more = batches.page("a", "openai", after=ids[1], limit=2)
    assert ([one.id for one in after], has_more) == (ids[2:4], True)
    before, has_more = batches.page("a", "openai", before=ids[3], limit=2)
    assert ([one.id for one in before], has_more) == (ids[1:3], True)
    assert len(batches.page(None, "openai", limit=10)[0]) == 6
    assert batches.page("a", "anthropic", limit=10) == ([], False)


def test_a_creation_that_fails_leaves_nothing(batches: BatchStore) -> None:
    def add_input(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    record = _record()
    with pytest.raises(DiskFullError):
        batches.create(record, add_input)
    assert not batches.folder(record.id).exists
    with pytest.raises(BatchNotFoundError):
        batches.get(record.id)


def test_what_is_only_in_redis_is_forgotten(batches: BatchStore) -> None:
    lost, kept = _create(batches), _create(batches)
    batches.folder(lost.id).remove()
    batches.drop_lost()
    assert batches.active() == [kept.id]


def test_old_batches_and_failed_creations_are_removed(batches: BatchStore) -> None:
    now = time.time()
    old, new = _create(batches), _create(batches)
    for record, ended_at in ((old, now - 31 * 86400), (new, now - 29 * 86400)):
        done = _changed(record, status=BatchStatus.COMPLETED, completed_at=int(ended_at))
        batches.set(done, [record.status])
    half = batches.folder(new_batch_id())
    half.make()
    batches.forget_old(now)
    assert half.path.is_dir()
    batches.forget_old(now + 7200)
    assert not half.exists
    assert not batches.folder(old.id).exists
    assert [one.id for one in batches.page(None, "openai", limit=10)[0]] == [new.id]


@pytest.mark.parametrize("batch_id", ["batch_1", "../../etc", "batch_" + "g" * 32, ""])
def test_what_is_no_id_is_no_path(batches: BatchStore, batch_id: str) -> None:
    with pytest.raises(BatchNotFoundError):
        batches.get(batch_id)


def test_a_lease_keeps_other_machines_away(batches: BatchStore, redis: SyncRedis) -> None:
    batch_id = _create(batches).id
    first, status = batches.lease(batch_id, "here", "p1", _LEASE_S)
    assert (first, status) == ("here|p1|1", "validating")
    assert batches.lease(batch_id, "here", "p1", _LEASE_S)[0] == first
    assert batches.lease(batch_id, "there", "p2", _LEASE_S)[0] == ""
    redis.delete(object_names.batch_lease_key(batch_id))  # as when it runs out
    assert batches.lease(batch_id, "there", "p2", _LEASE_S)[0] == "there|p2|2"


def test_the_same_machine_takes_over_at_once(batches: BatchStore) -> None:
    batch_id = _create(batches).id
    former = batches.lease(batch_id, "here", "p1", _LEASE_S)[0]
    assert batches.lease(batch_id, "here", "p2", _LEASE_S)[0] == "here|p2|2"
    record = _changed(batches.get(batch_id), status=BatchStatus.IN_PROGRESS)
    assert batches.set(record, [BatchStatus.VALIDATING], former) == "lease"
    assert batches.get(batch_id).status is BatchStatus.VALIDATING


def test_a_status_changes_once(batches: BatchStore, redis: SyncRedis) -> None:
    record = _create(batches)
    done = _changed(record, status=BatchStatus.COMPLETED, completed_at=1)
    assert batches.set(done, [BatchStatus.FINALIZING]) == "validating"
    assert batches.set(done, [BatchStatus.VALIDATING]) == "done"
    assert batches.set(done, [BatchStatus.VALIDATING]) == "done"
    assert batches.set(_changed(done, usage=done.usage, model="m"), [record.status]) == "completed"
    assert batches.active() == []
    redis.flushall()
    assert batches.set(done, [BatchStatus.VALIDATING]) == "gone"


def test_a_cancel_is_noted_once_and_refused_after_the_end(batches: BatchStore) -> None:
    record = _create(batches)
    assert batches.cancel(record.id).status is BatchStatus.CANCELLING
    assert batches.cancel(record.id).cancelling_at is not None
    assert batches.folder(record.id).is_cancelled
    failed = _create(batches)
    batches.set(_changed(failed, status=BatchStatus.FAILED), [failed.status])
    with pytest.raises(BatchStateError, match="failed"):
        batches.cancel(failed.id)


async def test_one_process_holds_a_batch(batches: BatchStore, services: Services) -> None:
    batch_id = _create(batches).id
    held = await HeldBatch.take(batches, services.runner, batch_id)
    assert held is not None
    assert await HeldBatch.take(batches, services.runner, batch_id) is None
    await held.release()
    again = await HeldBatch.take(batches, services.runner, batch_id)
    assert again is not None
    await again.release()


async def test_a_cancel_overtakes_the_runners_own_status(
    batches: BatchStore, services: Services
) -> None:
    batch_id = _create(batches).id
    held = await HeldBatch.take(batches, services.runner, batch_id)
    assert held is not None
    batches.cancel(batch_id)
    await held.save(status=BatchStatus.IN_PROGRESS, counts=LineCounts(total=5))
    assert held.is_cancelling.is_set()
    found = batches.get(batch_id)
    assert (found.status, found.counts.total) == (BatchStatus.CANCELLING, 5)
    assert found.cancelling_at is not None
    await held.save(status=BatchStatus.CANCELLED, cancelled_at=7)
    assert batches.get(batch_id).status is BatchStatus.CANCELLED
    await held.release()


async def test_a_cancel_outlives_the_data_of_redis(
    batches: BatchStore, services: Services, redis: SyncRedis
) -> None:
    batch_id = _create(batches).id
    batches.cancel(batch_id)
    redis.flushall()
    held = await HeldBatch.take(batches, services.runner, batch_id)
    assert held is not None
    assert held.is_cancelling.is_set()
    await held.release()


async def test_what_is_on_disk_has_happened(
    batches: BatchStore, services: Services, redis: SyncRedis
) -> None:
    record = _create(batches)
    done = _changed(record, status=BatchStatus.COMPLETED, completed_at=9)
    batches.folder(record.id).write(done)
    held = await HeldBatch.take(batches, services.runner, record.id)
    assert held is not None
    assert held.has_ended
    assert batches.get(record.id) == done
    await held.release()


async def test_a_batch_of_another_process_is_left_alone(
    batches: BatchStore, services: Services, redis: SyncRedis
) -> None:
    record = _create(batches)
    held = await HeldBatch.take(batches, services.runner, record.id)
    assert held is not None
    redis.set(object_names.batch_lease_key(record.id), "elsewhere|p|9", px=60_000)
    with pytest.raises(LeaseLostError):
        await held.save(status=BatchStatus.IN_PROGRESS)
    assert batches.get(record.id).status is BatchStatus.VALIDATING
    await held.release()
    assert redis.get(object_names.batch_lease_key(record.id)) == b"elsewhere|p|9"


@pytest.mark.parametrize("worker", ["w", ""])
def test_the_job_of_a_line_stays_until_its_worker_has_released_it(
    redis: SyncRedis, worker: str
) -> None:
    """Its record names no worker if it has ended between its take and its start."""
    jobs, job_id, queue = LineJobs(redis), "bline-1-1", names.batch_queue("m")
    about = {"status": "running", "model_id": "m", "worker": worker, "queue": queue}
    redis.hset(names.job_key(job_id), mapping=about)
    redis.set(names.request_key(job_id), "r")
    redis.sadd(names.claims_key("m"), names.claim("w", job_id))
    jobs.forget([job_id])
    redis.hset(names.job_key(job_id), "status", "finished")
    jobs.forget([])
    assert jobs.num_waiting == 1
    assert jobs.find([job_id]) == [job_id]
    redis.srem(names.claims_key("m"), names.claim("w", job_id))
    jobs.forget([job_id])
    assert jobs.num_waiting == 0
    assert jobs.find([job_id]) == []
    assert not redis.exists(names.request_key(job_id))


async def test_a_line_that_is_run_again_has_another_job_also_for_the_next_process(
    batches: BatchStore, services: Services, redis: SyncRedis
) -> None:
    held = await HeldBatch.take(batches, services.runner, _create(batches).id)
    assert held is not None
    place = Workplace(services, FastAPI(), LineJobs(redis), asyncio.Event())
    ids = LineJobIds(place, held)
    await ids.load()
    first = ids.of(7)
    redis.hset(names.job_key(first), mapping={"status": "failed", "model_id": "m", "queue": "q"})
    await ids.renew(7)
    assert ids.of(7) == f"{first}-1"
    assert not redis.exists(names.job_key(first))
    assert redis.ttl(object_names.batch_runs_key(held.record.id)) > 0
    redis.hset(object_names.batch_runs_key(held.record.id), "x", "y")
    successor = LineJobIds(place, held)
    await successor.load()
    assert (successor.of(7), successor.all_of(7)) == (ids.of(7), [first, ids.of(7)])
    assert successor.of(8) == held.record.line_job(8)
    await held.release()
