"""The event log: what a writer wrote is what a reader reads, from any place on."""

from __future__ import annotations

import pytest

from jobs.contract.errors import ContractError, ErrorInfo
from jobs.contract.events import BEFORE_ALL, EventId, EventKind
from jobs.contract.records import JobStatus
from jobs.storage import names
from jobs.storage.connection import connect_async
from jobs.storage.event_log import last_event_id, read_log, read_log_async
from jobs.storage.store import JobStore
from tests.helpers.samples import event, submission
from tests.helpers.taking import WORKER, open_attempt


@pytest.fixture
def job(store: JobStore) -> str:
    """A job in its first attempt."""
    new = submission()
    store.submit(new)
    open_attempt(store.redis, WORKER, new.job_id)
    return new.job_id


def test_what_is_written_is_read_in_order_from_any_place(store: JobStore, job: str) -> None:
    sent = [event(seq=seq, job=job, text=f"é{seq}") for seq in range(1, 8)]
    store.writer.append(sent[:4])
    store.writer.append(sent[4:])
    assert read_log(store.redis, job) == sent
    for place in range(7):
        assert read_log(store.redis, job, sent[place].id) == sent[place + 1 :]
    assert read_log(store.redis, job, EventId(9, 9)) == []
    assert last_event_id(store.redis, job) == (1, 7)


async def test_asyncio_reads_the_same(store: JobStore, job: str, redis_url: str) -> None:
    sent = [event(seq=seq, job=job) for seq in range(1, 4)]
    store.writer.append(sent)
    client = connect_async(redis_url)
    assert await read_log_async(client, job) == sent
    assert await read_log_async(client, job, sent[1].id) == sent[2:]
    await client.aclose()


def test_an_empty_log_begins_before_all(store: JobStore, job: str) -> None:
    assert last_event_id(store.redis, job) == BEFORE_ALL
    assert read_log(store.redis, job) == []


@pytest.mark.parametrize("fields", [{"e": b"not ours"}, {"odd": b"{}"}])
def test_a_foreign_entry_is_a_contract_error(
    store: JobStore, job: str, fields: dict[str, bytes]
) -> None:
    store.redis.xadd(names.log_key(job), fields, id="1-1")
    with pytest.raises(ContractError):
        read_log(store.redis, job)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (EventKind.FINISHED, JobStatus.FINISHED),
        (EventKind.FAILED, JobStatus.FAILED),
        (EventKind.CANCELLED, JobStatus.CANCELLED),
    ],
)
def test_an_end_gives_the_job_its_status(
    store: JobStore, job: str, kind: EventKind, status: JobStatus
) -> None:
    error = None if kind is EventKind.FINISHED else ErrorInfo("engine_error", "x")
    assert store.writer.settle(event(kind, 1, job=job, error=error))
    record = store.record(job)
    assert (record.status, record.error_code) == (status, "engine_error" if error else "")
    assert record.ended_at >= record.started_at >= record.created_at - 1


def test_a_job_that_nobody_runs_is_ended_after_what_its_log_holds(
    store: JobStore, job: str
) -> None:
    store.writer.append([event(seq=1, job=job)])
    info = ErrorInfo("worker_lost", "gone")
    assert store.writer.settle_unowned(job, 1, EventKind.FAILED, info)
    assert [str(found.id) for found in read_log(store.redis, job)] == ["1-1", "1-2"]
    assert not store.writer.settle_unowned(job, 1, EventKind.FAILED, info)


def test_an_end_for_an_older_attempt_is_refused(store: JobStore, job: str) -> None:
    store.return_to_queue(store.record(job), WORKER, counted_as=None)
    open_attempt(store.redis, "0.gen.other", job)
    assert not store.writer.settle_unowned(job, 1, EventKind.FAILED, ErrorInfo("x", "x"))
    assert store.record(job).status is JobStatus.RUNNING
