"""Purging: what is old ends, waiting or running, each job once and all of its records."""

from __future__ import annotations

from typing import Any

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


def test_the_class_batch_is_spared_unless_it_is_named(store: JobStore) -> None:
    def put(**fields: Any) -> str:
        return submit(store, age_s=100.0, **fields)

    line, taken = (put(job_class="batch", batch="batch_1", line=number) for number in (1, 2))
    flex, person = put(job_class="batch"), put()
    open_attempt(store.redis, "0.bat.test", taken)
    assert store.purge("0", 50.0) == (1, 0)
    assert store.record(person).status is JobStatus.CANCELLED
    assert {store.record(one).status for one in (line, flex)} == {JobStatus.QUEUED}
    assert not store.record(taken).cancel
    assert store.purge("0", 50.0, ["batch"]) == (2, 1)
    assert store.record(taken).cancel
    assert store.queue(names.batch_queue("0")).get_job_ids() == []


def test_both_classes_are_purged_together(store: JobStore) -> None:
    ids = [submit(store, age_s=9.0, job_class=name) for name in ("interactive", "batch")]
    assert store.purge("0", 5.0, ["interactive", "batch"]) == (2, 0)
    assert {store.record(job_id).status for job_id in ids} == {JobStatus.CANCELLED}


def test_a_purge_whose_reply_was_lost_can_be_sent_again(store: JobStore) -> None:
    ids = [submit(store, age_s=1.0) for _ in range(3)]
    records = store.records(ids)
    taken = ids[1]
    take(store.redis, WORKER, taken)  # a worker is about to open it
    purger = Purger(store, 60)
    assert purger.end(records, "old") == {ids[0], ids[2]}
    assert purger.end(records, "old") == {ids[0], ids[2]}
    assert [len(read_log(store.redis, job_id)) for job_id in ids] == [1, 0, 1]
    assert store.record(taken).status is JobStatus.QUEUED
