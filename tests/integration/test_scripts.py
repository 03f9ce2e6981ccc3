"""The fence: what Redis accepts from whom, however often it is said."""

from __future__ import annotations

import threading

import pytest
from redis.exceptions import ResponseError

from jobs.contract.errors import ErrorInfo
from jobs.contract.events import EventKind, Usage
from jobs.contract.records import JobStatus
from jobs.settings import Settings
from jobs.storage import names
from jobs.storage.connection import SyncRedis, connect
from jobs.storage.event_log import EventWriter, read_log
from jobs.storage.fence import Fence, OwnershipLostError
from jobs.storage.lua import claim_scripts, job_scripts, state_scripts
from jobs.storage.lua.job_scripts import RESERVE_S
from jobs.storage.store import JobStore
from jobs.storage.totals import read_totals
from tests.helpers.samples import event, generate, new_job_id, submission
from tests.helpers.taking import WORKER, claimed, open_attempt, run_take, take
from workers.generation.attempts import AttemptOpener

OTHER = "0.gen.other"


@pytest.fixture
def writer(store: JobStore) -> EventWriter:
    return store.writer


@pytest.fixture
def opener(redis: SyncRedis) -> AttemptOpener:
    return AttemptOpener(redis, WORKER)


@pytest.fixture
def job(store: JobStore) -> str:
    """A job that the worker has taken off its queue."""
    new = submission(generate())
    store.submit(new)
    take(store.redis, WORKER, new.job_id)
    return new.job_id


def seqs(redis: SyncRedis, job: str) -> list[str]:
    return [str(found.id) for found in read_log(redis, job)]


def test_opening_gives_the_next_attempt_and_says_what_the_log_holds(
    opener: AttemptOpener, writer: EventWriter, store: JobStore, job: str
) -> None:
    first = opener.open(job)
    assert first is not None
    assert (first.attempt, first.seq, first.cancel_reason) == (1, 0, "")
    assert writer.append([event(seq=1, job=job), event(seq=2, job=job)]) == [True, True]
    store.return_to_queue(store.record(job), WORKER, counted_as=None)
    second = open_attempt(store.redis, OTHER, job)
    assert (second.attempt, second.seq) == (2, 2)
    record = store.record(job)
    assert (record.status, record.worker, record.attempt) == (JobStatus.RUNNING, OTHER, 2)


def test_opened_again_by_the_same_worker_it_is_the_same_attempt(
    opener: AttemptOpener, writer: EventWriter, store: JobStore, job: str
) -> None:
    """A call whose reply got lost, or that comes late, must not silence its own worker."""
    first, again = opener.open(job), opener.open(job)
    assert (first.attempt, again.attempt, again.seq) == (1, 1, 0)
    assert writer.append([event(seq=1, job=job)]) == [True]
    assert opener.open(job).attempt == 1
    assert writer.append([event(seq=2, job=job)]) == [True]
    assert store.record(job).attempt == 1


def test_a_taken_job_is_claimed_in_the_same_step(redis: SyncRedis, store: JobStore) -> None:
    new = submission()
    store.submit(new)
    queue = store.queue("mgs-gen-0")
    taken = run_take(redis, queue, WORKER)
    assert taken == new.job_id.encode()
    assert claimed(redis) == {(WORKER, new.job_id)}
    assert redis.lrange(queue.intermediate_queue_key, 0, -1) == [taken]
    assert redis.llen(queue.key) == 0
    assert store.record(new.job_id).status is JobStatus.QUEUED


def test_without_its_claim_a_worker_opens_nothing_and_changes_nothing(
    opener: AttemptOpener, store: JobStore, redis: SyncRedis, job: str
) -> None:
    store.drop_claim("0", WORKER, job)
    take(redis, "0.gen.other", job)
    before = redis.hgetall(names.job_key(job))
    assert opener.open(job) is None
    assert redis.hgetall(names.job_key(job)) == before
    assert claimed(redis) == {("0.gen.other", job)}


def test_a_job_that_has_ended_or_never_was_cannot_be_opened(
    opener: AttemptOpener, store: JobStore, redis: SyncRedis, job: str
) -> None:
    store.cancel(job, "enough")
    assert opener.open(job) is None
    unknown = new_job_id("unknown")
    take(redis, WORKER, unknown)
    assert opener.open(unknown) is None
    assert not redis.exists(names.job_key(unknown))


def test_an_event_of_the_open_attempt_is_written_and_published_once(
    opener: AttemptOpener, writer: EventWriter, redis: SyncRedis, job: str
) -> None:
    opener.open(job)
    with redis.pubsub(ignore_subscribe_messages=True) as listener:
        listener.subscribe(names.event_channel(job))
        listener.get_message(timeout=5)
        said = event(seq=1, job=job, text="hello")
        assert writer.append([said]) == [True]
        assert writer.append([said]) == [True], "its reply was lost: it is there"
        writer.append([event(seq=2, job=job, text="next")])
        lines = [listener.get_message(timeout=5)["data"] for _ in range(2)]
    assert [b"hello" in lines[0], b"next" in lines[1]] == [True, True]
    assert seqs(redis, job) == ["1-1", "1-2"]


def test_a_stale_attempt_is_refused_from_the_moment_the_next_one_opens(
    opener: AttemptOpener, writer: EventWriter, store: JobStore, redis: SyncRedis, job: str
) -> None:
    opener.open(job)
    writer.append([event(seq=1, job=job)])
    store.return_to_queue(store.record(job), WORKER, counted_as=None)
    open_attempt(redis, OTHER, job)
    assert writer.append([event(seq=2, job=job)]) == [False]
    assert not writer.settle(event(EventKind.FINISHED, seq=2, job=job))
    assert writer.append([event(seq=2, attempt=2, job=job)]) == [True]
    assert seqs(redis, job) == ["1-1", "2-2"]


def test_events_of_several_jobs_are_judged_one_by_one(
    opener: AttemptOpener, writer: EventWriter, store: JobStore, job: str
) -> None:
    other = submission()
    store.submit(other)
    opener.open(job)
    events = [event(seq=1, job=other.job_id), event(seq=1, job=job)]
    assert writer.append(events) == [False, True], "nobody has opened the other"


def test_nothing_is_appended_after_the_end(
    opener: AttemptOpener, writer: EventWriter, redis: SyncRedis, job: str
) -> None:
    opener.open(job)
    assert writer.settle(event(EventKind.FINISHED, seq=1, job=job))
    assert writer.append([event(seq=2, job=job)]) == [False]
    assert seqs(redis, job) == ["1-1"]


def test_the_same_end_twice_is_success_and_another_end_is_not(
    opener: AttemptOpener, writer: EventWriter, store: JobStore, job: str
) -> None:
    opener.open(job)
    end = event(EventKind.FINISHED, seq=1, job=job)
    assert [writer.settle(end), writer.settle(end)] == [True, True]
    failure = event(EventKind.FAILED, seq=2, job=job, error=ErrorInfo("worker_lost", "late"))
    assert not writer.settle(failure)
    assert store.record(job).status is JobStatus.FINISHED
    assert store.record(job).error_code == ""


def test_of_many_writers_at_once_exactly_one_ends_the_job(
    opener: AttemptOpener, settings: Settings, redis: SyncRedis, job: str
) -> None:
    opener.open(job)
    barrier, wins = threading.Barrier(8), []

    def settle(number: int) -> None:
        client = connect(settings.effective_redis_url)
        mine = EventWriter(client, 60, 60)
        barrier.wait(10)
        if mine.settle(event(EventKind.FINISHED, seq=number, job=job)):
            wins.append(number)
        client.close()

    threads = [threading.Thread(target=settle, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(wins) == 1
    assert seqs(redis, job) == [f"1-{wins[0]}"]


def test_an_ended_job_expires_with_its_log_and_its_request(
    opener: AttemptOpener, writer: EventWriter, redis: SyncRedis, settings: Settings, job: str
) -> None:
    opener.open(job)
    writer.append([event(seq=1, job=job)])
    assert redis.ttl(names.log_key(job)) == -1, "not trimmed while it runs"
    writer.settle(event(EventKind.FINISHED, seq=2, job=job))
    for key in (names.job_key(job), names.log_key(job), names.request_key(job)):
        assert -5 <= redis.ttl(key) - settings.log_ttl_s - RESERVE_S <= 0


def test_a_failure_is_kept_for_a_day(
    opener: AttemptOpener, writer: EventWriter, redis: SyncRedis, settings: Settings, job: str
) -> None:
    opener.open(job)
    writer.settle(event(EventKind.FAILED, seq=1, job=job, error=ErrorInfo("engine_error", "x")))
    assert -5 <= redis.ttl(names.job_key(job)) - settings.failure_ttl_s - RESERVE_S <= 0


def test_a_full_redis_is_an_error_and_not_a_refusal(
    opener: AttemptOpener, writer: EventWriter, redis: SyncRedis, job: str
) -> None:
    """A writer that takes "no memory" for "stale" would drop the job without an end."""
    opener.open(job)
    redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(ResponseError):
            writer.append([event(seq=1, job=job)])
        with pytest.raises(ResponseError):
            writer.settle(event(EventKind.FINISHED, seq=2, job=job))
    finally:
        redis.config_set("maxmemory", "0")
    assert writer.append([event(seq=1, job=job)]) == [True]
    assert writer.settle(event(EventKind.FINISHED, seq=2, job=job))


def test_a_returned_job_is_first_in_its_queue_and_its_old_attempt_is_silenced(
    opener: AttemptOpener, writer: EventWriter, store: JobStore, redis: SyncRedis, job: str
) -> None:
    later = submission()
    store.submit(later)
    queue = store.queue("mgs-gen-0")
    opener.open(job)
    assert store.return_to_queue(store.record(job), WORKER, counted_as="deaths")
    assert claimed(redis) == set()
    assert [item.decode() for item in redis.lrange(queue.key, 0, -1)] == [job, later.job_id]
    assert redis.llen(queue.intermediate_queue_key) == 0
    record = store.record(job)
    assert (record.status, record.worker, record.deaths) == (JobStatus.QUEUED, "", 1)
    assert writer.append([event(seq=1, job=job)]) == [False]


def test_a_job_returned_twice_is_queued_once_and_counts_one_death(
    opener: AttemptOpener, store: JobStore, redis: SyncRedis, job: str
) -> None:
    opener.open(job)
    record = store.record(job)
    answers = [store.return_to_queue(record, WORKER, counted_as="deaths") for _ in range(2)]
    assert answers == [True, False], "the first has done it"
    assert redis.llen(store.queue("mgs-gen-0").key) == 1
    assert store.record(job).deaths == 1


def test_an_ended_job_is_not_returned(
    opener: AttemptOpener, writer: EventWriter, store: JobStore, redis: SyncRedis, job: str
) -> None:
    redis.delete(store.queue("mgs-gen-0").key)
    opener.open(job)
    writer.settle(event(EventKind.FINISHED, seq=1, job=job))
    assert not store.return_to_queue(store.record(job), WORKER, counted_as="deaths")
    assert redis.llen(store.queue("mgs-gen-0").key) == 0
    assert claimed(redis) == set()


def test_a_job_that_another_worker_runs_by_now_is_left_to_it(
    opener: AttemptOpener, store: JobStore, redis: SyncRedis, job: str
) -> None:
    opener.open(job)
    record = store.record(job)
    other = "0.gen.other"
    take(redis, other, job)
    assert AttemptOpener(redis, other).open(job)
    assert not store.return_to_queue(record, WORKER, counted_as="deaths")
    assert claimed(redis) == {(other, job)}
    found = store.record(job)
    assert (found.status, found.worker, found.deaths) == (JobStatus.RUNNING, other, 0)
    assert redis.llen(store.queue("mgs-gen-0").key) == 0


@pytest.mark.parametrize(
    ("current", "expected", "new", "answer", "left"),
    [
        (None, "", "a", [1], b"a"),
        ("a", "", "b", [0, b"a"], b"a"),
        ("a", "a", "b", [1], b"b"),
        ("b", "a", "b", [1], b"b"),
        ("a", "a", "", [1], None),
        (None, "a", "", [1], None),
        ("c", "a", "", [0, b"c"], b"c"),
    ],
)
def test_a_field_is_swapped_only_for_who_knows_its_value(
    redis: SyncRedis, current: str | None, expected: str, new: str, answer: list, left: bytes | None
) -> None:
    if current is not None:
        redis.hset("h", "field", current)
    swap = redis.register_script(state_scripts.SWAP_FIELD)
    assert swap(keys=["h"], args=["field", expected, new]) == answer
    assert redis.hget("h", "field") == left


def test_a_request_to_cancel_tells_who_has_the_job(
    opener: AttemptOpener, redis: SyncRedis, job: str
) -> None:
    request_cancel = redis.register_script(job_scripts.REQUEST_CANCEL)
    key = names.job_key(job)
    assert request_cancel(keys=[key], args=["why"]) == [b"queued", b"0", b""]
    attempt = opener.open(job)
    assert attempt is not None
    assert attempt.cancel_reason == "why"
    assert request_cancel(keys=[key], args=["why"]) == [b"running", b"1", WORKER.encode()]
    assert request_cancel(keys=["mgs:job:none"], args=["why"]) == [b"gone", b"0", b""]


def test_an_end_is_counted_once_however_often_it_is_said(
    opener: AttemptOpener, writer: EventWriter, redis: SyncRedis, job: str
) -> None:
    opener.open(job)
    end = event(seq=1, job=job, kind=EventKind.FINISHED, usage=Usage(10, 5, 2))
    assert [writer.settle(end) for _ in range(3)] == [True] * 3
    totals = read_totals(redis)
    assert list(totals.jobs.values()) == [1]
    amounts = (value for sums in totals.sums.values() for value in sums.values())
    assert sorted(amounts) == [2, 5, 10]


def test_a_worker_that_is_dead_or_has_given_up_a_take_is_given_nothing_by_it(
    redis: SyncRedis, store: JobStore
) -> None:
    """A request that comes late: nobody would look for the claim that it made."""
    new = submission()
    store.submit(new)

    def take_number(number: int, worker: str = WORKER) -> bytes | None:
        return run_take(redis, store.queue("mgs-gen-0"), worker, number=number)

    find = redis.register_script(claim_scripts.FIND_TAKEN)
    keys = [names.claims_key("0"), names.take_key(WORKER)]
    assert find(keys=keys, args=[3, 60]) == []
    assert take_number(2) is None
    store.stop_takes("0", [OTHER])
    assert take_number(9, OTHER) is None
    assert take_number(3) == new.job_id.encode()
    store.stop_takes("0", [WORKER])
    assert find(keys=keys, args=[9, 60]) == [names.claim(WORKER, new.job_id).encode()]
    assert redis.get(names.take_key(WORKER)) == b"dead", "nobody lives again"


def test_what_a_worker_has_in_hand_it_is_not_given_again(redis: SyncRedis, store: JobStore) -> None:
    first, second = submission(), submission()
    for new in (first, second):
        store.submit(new)
    taken = run_take(redis, store.queue("mgs-gen-0"), WORKER, held=[first.job_id])
    assert taken == second.job_id.encode()


def test_who_has_lost_the_model_returns_ends_and_lets_go_of_nothing(
    opener: AttemptOpener, writer: EventWriter, store: JobStore, redis: SyncRedis, job: str
) -> None:
    """A supervisor that was frozen in the middle of a recovery, while another took over."""
    opener.open(job)
    record, lists = store.record(job), store.lists_of(store.record(job))
    before = redis.hgetall(names.job_key(job)), claimed(redis)
    for holder in (None, "another|one"):
        if holder is not None:
            redis.set(names.owner_key("0"), holder)
        with pytest.raises(OwnershipLostError):
            store.return_to_queue(record, WORKER, counted_as="deaths", owner="the|former")
        with pytest.raises(OwnershipLostError):
            store.stop_takes("0", [WORKER], "the|former")
        with pytest.raises(OwnershipLostError):
            store.drop_claim("0", WORKER, job, "the|former")
        with pytest.raises(OwnershipLostError):
            writer.settle(event(EventKind.FAILED, 1, 1, job), lists, Fence("0", "the|former"))
    assert (redis.hgetall(names.job_key(job)), claimed(redis)) == before
    assert store.return_to_queue(record, WORKER, counted_as="deaths", owner="another|one")
