"""Jobs in Redis and on RQ's queues: queued once, shown without a prompt, ended for sure."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rq.job import Job
from rq.serializers import JSONSerializer

from jobs.contract.errors import ContractError, JobNotFoundError, QueueFullError, WorkerLostError
from jobs.contract.events import Event, EventKind
from jobs.contract.records import JobRecord, JobStatus
from jobs.contract.requests import LoadRequest, Prompt, TokenCountRequest
from jobs.storage import names
from jobs.storage.connection import connect
from jobs.storage.event_log import read_log
from jobs.storage.purger import Expiry
from jobs.storage.store import JobStore
from tests.helpers.queues import submit, waiting
from tests.helpers.samples import event, generate, settings_for, submission
from tests.helpers.taking import WORKER, claimed, open_attempt, take
from workers.generation.attempts import AttemptOpener


@pytest.fixture
def store(redis_url: str, tmp_path: Path) -> Iterator[JobStore]:
    client = connect(redis_url)
    yield JobStore(client, settings_for(redis_url, tmp_path, max_queued_per_model=20))
    client.close()


def test_a_job_submitted_twice_is_queued_once_as_it_was_first(store: JobStore) -> None:
    new = submission(generate("first"))
    store.submit(new)
    before = store.record(new.job_id)
    store.submit(new)
    assert waiting(store) == [new.job_id]
    assert store.record(new.job_id) == before
    assert store.request(new.job_id) == new.request


def test_a_job_submitted_again_after_it_began_is_not_queued_again(store: JobStore) -> None:
    new = submission()
    store.submit(new)
    open_attempt(store.redis, WORKER, new.job_id)
    store.submit(new)
    assert waiting(store) == []
    assert store.record(new.job_id).status is JobStatus.RUNNING


def test_completions_and_the_rest_have_queues_of_their_own(store: JobStore) -> None:
    done = submit(store)
    counted = submit(store, request=TokenCountRequest(Prompt(text="x")), job_id="tok-1")
    loaded = submit(store, request=LoadRequest("fake", "fake"), job_id="load-1", is_first=True)
    assert waiting(store, "mgs-gen-0") == [done]
    assert waiting(store, "mgs-ctl-0") == [loaded, counted]


def test_rqs_side_of_a_job_tells_facts_and_never_the_prompt(store: JobStore) -> None:
    prompt = [Prompt(text="canary-prompt")]
    request = generate(prompts=prompt, stop=["canary-stop"])
    job_id = submit(store, request=request, facts={"model": "demo", "mode": "stream"})
    stored = store.redis.hgetall(Job.key_for(job_id))
    data = zlib.decompress(stored[b"data"])
    assert json.loads(data) == ["mgs.generate", None, [job_id], {}]
    assert stored[b"description"].decode() == "generate · demo · stream"
    assert json.loads(stored[b"meta"]) == {
        "task": "mgs.generate", "model": "demo", "mode": "stream",
    }  # fmt: skip
    assert b"canary" not in b"".join([data, *stored.values()])
    assert stored[b"timeout"] == b"-1"


def test_the_record_of_a_job_can_be_read_in_redis_cli(store: JobStore) -> None:
    job_id = submit(store, owner="api-1", is_background=True)
    stored = store.redis.hgetall(names.job_key(job_id))
    shown = {key.decode(): value.decode() for key, value in stored.items()}
    created_at = shown.pop("created_at")
    assert shown == {
        "task": "mgs.generate", "model_id": "0", "queue": "mgs-gen-0", "status": "queued",
        "is_background": "1", "owner": "api-1", "api": "text", "prompt_chars": "8",
        "model": "fake",
    }  # fmt: skip
    assert store.record(job_id).created_at == float(created_at)


def test_what_no_end_shortens_expires_in_the_end(store: JobStore) -> None:
    job_id = submit(store)
    for key in (names.job_key(job_id), names.request_key(job_id)):
        assert 7 * 86400 < store.redis.ttl(key) <= 14 * 86400


def test_a_full_queue_refuses_completions_and_nothing_else(store: JobStore) -> None:
    for _ in range(20):
        submit(store)
    with pytest.raises(QueueFullError, match="20"):
        submit(store)
    submit(store, request=TokenCountRequest(Prompt(text="x")))
    submit(store, model_id="1")
    assert len(waiting(store)) == 20


def test_a_queued_job_is_cancelled_at_once_and_leaves_rqs_queue(store: JobStore) -> None:
    job_id, other = submit(store), submit(store)
    found = store.cancel(job_id, "its client left")
    assert found.status is JobStatus.QUEUED
    assert waiting(store) == [other]
    (end,) = read_log(store.redis, job_id)
    assert (end.kind, end.error.code) == (EventKind.CANCELLED, "job_cancelled")
    assert end.error.message == "its client left"
    assert store.record(job_id).status is JobStatus.CANCELLED
    job = Job.fetch(job_id, store.redis, JSONSerializer)
    assert job.get_status() == "canceled"
    assert 0 < store.redis.ttl(job.key) <= 86400
    registry = store.queue(job.origin).canceled_job_registry
    assert job_id not in registry, "RQ never cleans that one"


def test_a_running_jobs_worker_is_told_by_rqs_own_command(store: JobStore) -> None:
    job_id = submit(store)
    open_attempt(store.redis, WORKER, job_id)
    with store.redis.pubsub(ignore_subscribe_messages=True) as commands:
        commands.subscribe(f"rq:pubsub:{WORKER}")
        commands.get_message(timeout=5)
        assert store.cancel(job_id, "enough").status is JobStatus.RUNNING
        message = commands.get_message(timeout=5)
    assert json.loads(message["data"]) == {
        "command": "stop-job", "job_id": job_id, "reason": "enough",
    }  # fmt: skip
    assert store.record(job_id).cancel == "enough"
    assert read_log(store.redis, job_id) == []


def test_a_job_on_its_way_to_a_worker_is_cancelled_at_once_and_not_opened(
    store: JobStore,
) -> None:
    job_id = submit(store)
    take(store.redis, WORKER, job_id)
    store.cancel(job_id, "too late for the queue")
    (end,) = read_log(store.redis, job_id)
    assert (end.kind, end.error.message) == (EventKind.CANCELLED, "too late for the queue")
    assert AttemptOpener(store.redis, WORKER).open(job_id) is None
    assert store.record(job_id).status is JobStatus.CANCELLED
    assert store.redis.llen(store.queue("mgs-gen-0").intermediate_queue_key) == 0


def test_a_cancel_that_a_worker_overtakes_is_found_by_it(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker opens the job between the request to cancel and its end."""
    job_id = submit(store)
    take(store.redis, WORKER, job_id)
    settle, opened = store.writer.settle_unowned, []

    def open_first(*args: Any) -> bool:
        opened.append(AttemptOpener(store.redis, WORKER).open(job_id))
        return settle(*args)

    monkeypatch.setattr(store.writer, "settle_unowned", open_first)
    store.cancel(job_id, "a moment too late")
    assert [attempt.cancel_reason for attempt in opened] == ["a moment too late"]
    assert store.record(job_id).status is JobStatus.RUNNING
    assert claimed(store.redis) == {(WORKER, job_id)}


def test_a_job_whose_log_is_none_can_be_cancelled_and_its_end_is_told(store: JobStore) -> None:
    job_id = submit(store)
    store.redis.rpush(names.log_key(job_id), "not ours")
    store.cancel(job_id, "enough")
    assert [end.kind for end in read_log(store.redis, job_id)] == [EventKind.CANCELLED]
    assert store.record(job_id).status is JobStatus.CANCELLED


def test_cancelling_what_has_ended_or_never_was_changes_nothing(store: JobStore) -> None:
    job_id = submit(store)
    store.cancel(job_id, "first")
    before = store.record(job_id)
    assert store.cancel(job_id, "second") == before
    assert len(read_log(store.redis, job_id)) == 1
    with pytest.raises(JobNotFoundError):
        store.cancel("cmpl-unknown", "x")
    assert not store.redis.exists(names.job_key("cmpl-unknown"))


def all_pages(store: JobStore, limit: int, accept=lambda _: True) -> list[str]:
    found, before = [], None
    while True:
        records, before = store.page(before, limit, accept)
        assert len(records) <= limit
        found += [record.job_id for record in records]
        if before is None:
            return found


@pytest.mark.parametrize("limit", [1, 3, 10, 200])
def test_pages_show_every_job_once_newest_first(store: JobStore, limit: int) -> None:
    ids = [submit(store, age_s=100.0 - number) for number in range(10)]
    assert all_pages(store, limit) == ids[::-1]


def test_a_filter_chooses_over_all_pages(store: JobStore) -> None:
    ids = [submit(store, age_s=100.0 - number, model_id=str(number % 2)) for number in range(12)]

    def is_first(record: JobRecord) -> bool:
        return record.model_id == "0"

    assert all_pages(store, 4, is_first) == ids[::-1][1::2]
    assert all_pages(store, 4, lambda _: False) == []


def test_more_jobs_than_one_read_brings_are_paged_through(store: JobStore) -> None:
    with store.redis.pipeline() as pipe:
        for number in range(450):
            record = JobRecord(
                f"j{number}", submission().task, "0", "mgs-gen-0", JobStatus.FINISHED, float(number)
            )
            pipe.hset(names.job_key(record.job_id), mapping=record.to_redis())
            pipe.zadd(names.JOB_INDEX, {record.job_id: record.created_at})
        pipe.execute()
    assert all_pages(store, 7) == [f"j{number}" for number in reversed(range(450))]
    rare = all_pages(store, 7, lambda record: record.job_id in ("j3", "j444"))
    assert rare == ["j444", "j3"]


def test_expired_jobs_leave_the_index(store: JobStore) -> None:
    ids = [submit(store, age_s=10.0 - number) for number in range(4)]
    store.redis.zadd(names.JOB_EXPIRY, {ids[1]: 1.0})
    assert Expiry(store.redis).forget() == 1
    assert all_pages(store, 10) == [ids[3], ids[2], ids[0]]
    for index in (names.JOB_INDEX, names.JOB_EXPIRY, names.LIVE):
        assert sorted(store.redis.zrange(index, 0, -1)) == sorted(
            job_id.encode() for job_id in (ids[0], ids[2], ids[3])
        )
    assert Expiry(store.redis).forget() == 0


def test_one_broken_record_hides_no_other_and_says_what_it_is(store: JobStore) -> None:
    ids = [submit(store, age_s=10.0 - number) for number in range(3)]
    store.redis.hset(names.job_key(ids[1]), "status", "nonsense")
    assert all_pages(store, 10) == [ids[2], ids[0]]
    assert store.purge("0", 0.0) == (2, 0)
    with pytest.raises(ContractError, match=ids[1]):
        store.record(ids[1])


def test_what_was_asked_for_is_gone_with_its_record(store: JobStore) -> None:
    job_id = submit(store)
    store.redis.delete(names.request_key(job_id))
    with pytest.raises(JobNotFoundError):
        store.request(job_id)
    with pytest.raises(JobNotFoundError):
        store.record("cmpl-unknown")


@pytest.mark.parametrize("is_running", [True, False])
def test_an_abandoned_job_fails_and_whoever_comes_back_is_refused(
    store: JobStore, is_running: bool
) -> None:
    job_id = submit(store)
    if is_running:
        open_attempt(store.redis, WORKER, job_id)
    store.abandon(job_id, WorkerLostError("gone"))
    store.abandon(job_id, WorkerLostError("gone, said twice"))
    assert store.record(job_id).status is JobStatus.FAILED
    assert store.record(job_id).error_code == "worker_lost"
    assert waiting(store) == []
    assert [found.error.message for found in read_log(store.redis, job_id)] == ["gone"]
    assert store.writer.append([event(job=job_id, seq=7)]) == [False]


def test_a_job_whose_worker_speaks_meanwhile_is_not_abandoned(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(store)
    open_attempt(store.redis, WORKER, job_id)
    settle = store.writer.settle

    def speak_first(end: Event, lists: Sequence[str]) -> bool:
        assert store.writer.append([event(job=job_id, seq=1)]) == [True]
        return settle(end, lists)

    monkeypatch.setattr(store.writer, "settle", speak_first)
    store.abandon(job_id, WorkerLostError("gone"))
    assert store.record(job_id).status is JobStatus.RUNNING
    assert len(read_log(store.redis, job_id)) == 1
