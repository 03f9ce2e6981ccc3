"""Purging: what is old ends, waiting or running, each job once and all of its records."""

from __future__ import annotations

from rq.job import Job
from rq.serializers import JSONSerializer

from jobs.contract.events import EventKind
from jobs.contract.records import JobStatus
from jobs.storage import names
from jobs.storage.event_log import read_log
from jobs.storage.lua.job_scripts import RESERVE_S
from jobs.storage.purger import Purger
from jobs.storage.store import JobStore
from tests.helpers.queues import submit, waiting
from tests.helpers.samples import event
from tests.helpers.taking import WORKER, open_attempt, take


def test_purging_ends_exactly_what_is_older(store: JobStore) -> None:
    ages = [5.0, 59.0, 61.0, 500.0]
    queued = [submit(store, age_s=age) for age in ages]
    running = [submit(store, age_s=age) for age in ages]
    elsewhere = submit(store, age_s=500.0, model_id="1")
    for job_id in running:
        open_attempt(store.redis, WORKER, job_id)
    assert store.purge("0", 60.0) == (2, 2)
    assert [store.record(job_id).status for job_id in queued] == (
        [JobStatus.QUEUED] * 2 + [JobStatus.CANCELLED] * 2
    )
    assert [bool(store.record(job_id).cancel) for job_id in running] == [False] * 2 + [True] * 2
    assert "60 s" in store.record(running[3]).cancel
    assert store.record(elsewhere).status is JobStatus.QUEUED


def test_purging_everything_leaves_an_empty_queue(store: JobStore) -> None:
    ids = [submit(store, age_s=1.0) for _ in range(10)]
    assert store.purge("0", 0.0) == (10, 0)
    assert waiting(store) == []
    assert {store.record(job_id).status for job_id in ids} == {JobStatus.CANCELLED}
    assert store.purge("0", 0.0) == (0, 0)


def test_more_jobs_than_one_command_takes_are_purged_each_once(store: JobStore) -> None:
    ids = [submit(store, age_s=1.0) for _ in range(250)]
    returned = ids[7]  # one that a worker has held, and that is back in the queue
    open_attempt(store.redis, WORKER, returned)
    store.writer.append([event(EventKind.STARTED, seq=1, attempt=1, job=returned)])
    store.return_to_queue(store.record(returned), WORKER, counted_as=None)
    assert store.purge("0", 0.0) == (250, 0)
    assert waiting(store) == []
    for job_id in ids:
        last = read_log(store.redis, job_id)[-1]
        assert (last.kind, last.error.code) == (EventKind.CANCELLED, "job_cancelled")
        job = Job.fetch(job_id, store.redis, JSONSerializer)
        assert job.get_status() == "canceled"
        assert 0 < store.redis.ttl(names.job_key(job_id)) - RESERVE_S <= 86400
    assert store.redis.zcard(names.LIVE) == 0


def test_a_purge_whose_reply_was_lost_can_be_sent_again(store: JobStore) -> None:
    ids = [submit(store, age_s=1.0) for _ in range(3)]
    records, queue = store.records(ids), store.queue("mgs-gen-0")
    taken = ids[1]
    take(store.redis, WORKER, taken)  # a worker is about to open it
    purger = Purger(store.redis, 60)
    assert purger.end(queue, records, "old") == {ids[0], ids[2]}
    assert purger.end(queue, records, "old") == {ids[0], ids[2]}
    assert [len(read_log(store.redis, job_id)) for job_id in ids] == [1, 0, 1]
    assert store.record(taken).status is JobStatus.QUEUED
