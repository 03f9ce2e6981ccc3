"""Which job a take chooses: what was put back, then priority, then the caller that used least."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from jobs.contract.errors import ModelDrainingError
from jobs.contract.records import JobClass, JobStatus
from jobs.scheduling.holds import class_queue
from jobs.storage import names
from jobs.storage.connection import SyncRedis
from jobs.storage.store import JobStore
from tests.helpers.samples import submission
from tests.helpers.taking import WORKER, open_attempt, run_take
from workers.rq_bridge.taking import HandedBack, Order, Taken, Taker
from workers.scheduling.fair_use import FairUse

QUEUE = "mgs-gen-0"


@dataclass
class CallersJob:
    """A job of one sequence that has said nothing yet."""

    job_id: str
    caller: str
    job_class: JobClass
    weight: float = 1.0
    num_sequences: int = 1
    num_read: int = 0
    num_since_start: int = 0


def put(store: JobStore, **fields: Any) -> str:
    new = submission(**fields)
    store.submit(new)
    return new.job_id


def taken(redis: SyncRedis, store: JobStore, **fields: Any) -> str | None:
    answer = run_take(redis, store.queue(QUEUE), job_class="interactive", **fields)
    return None if answer is None else answer.decode()


def all_taken(redis: SyncRedis, store: JobStore, **fields: Any) -> list[str]:
    found = []
    while job_id := taken(redis, store, **fields):
        found.append(job_id)
    return found


def test_without_priorities_and_second_caller_it_is_first_in_first_out(
    redis: SyncRedis, store: JobStore
) -> None:
    ids = [put(store) for _ in range(20)]
    assert all_taken(redis, store) == ids
    assert not redis.exists(names.hints_key(QUEUE), names.hint_key(QUEUE, ""))


def test_lower_priority_goes_first_and_equal_ones_in_order(
    redis: SyncRedis, store: JobStore
) -> None:
    late, first, urgent, second = (put(store, priority=p) for p in (5, 0, -3, 0))
    assert all_taken(redis, store) == [urgent, first, second, late]


@pytest.mark.parametrize("is_other_caller", [False, True])
def test_waiting_lifts_a_job_to_the_level_of_urgent_ones(
    redis: SyncRedis, store: JobStore, is_other_caller: bool
) -> None:
    """10 s per level: after 60 s priority 5 counts as 0 does."""
    old = put(store, priority=5)
    caller = "another" if is_other_caller else ""
    queue_hint = names.hint_key(QUEUE, "")
    redis.zincrby(queue_hint, -60, old)
    redis.hset(names.job_key(old), "created_at", time.time() - 60)
    if is_other_caller:
        redis.hset(names.fair_key("0"), "interactive:another", 1)
    new = put(store, caller=caller)
    assert all_taken(redis, store) == [old, new]


def test_waiting_long_is_no_claim_on_more_than_a_share(redis: SyncRedis, store: JobStore) -> None:
    many = [put(store, caller="many") for _ in range(3)]
    for job_id in many:
        redis.hset(names.job_key(job_id), "created_at", time.time() - 500)
    one = put(store, caller="one")
    redis.hset(names.fair_key("0"), "interactive:many", 100)
    assert all_taken(redis, store) == [one, *many]


def test_the_caller_that_used_least_is_next(redis: SyncRedis, store: JobStore) -> None:
    ids = {caller: [put(store, caller=caller) for _ in range(3)] for caller in ("a", "b")}
    order: list[str] = []
    for _ in range(6):
        job_id = taken(redis, store, used={f"interactive:{order[-1]}": 10.0} if order else {})
        order.append(next(caller for caller in ids if job_id in ids[caller]))
    assert order in (list("ababab"), list("bababa"))


def test_unfair_it_is_first_in_first_out_over_callers(redis: SyncRedis, store: JobStore) -> None:
    ids = [put(store, caller=caller) for caller in "aaabb"]
    redis.hset(names.fair_key("0"), "interactive:a", 1000)
    assert all_taken(redis, store, is_fair=False) == ids


def test_who_comes_late_has_saved_nothing_up(redis: SyncRedis, store: JobStore) -> None:
    put(store, caller="busy")
    assert taken(redis, store)
    put(store, caller="busy")
    assert taken(redis, store, used={"interactive:busy": 5000})
    put(store, caller="late")
    put(store, caller="later")
    used = redis.hgetall(names.fair_key("0"))
    assert float(used[b"interactive:late"]) == float(used[b"interactive:later"]) == 5000


def test_classes_are_counted_apart(redis: SyncRedis, store: JobStore) -> None:
    redis.hset(names.fair_key("0"), mapping={"batch:a": 900, "interactive:b": 10})
    put(store, caller="b")
    first = put(store, caller="a")
    redis.hset(names.fair_key("0"), "interactive:a", 0)
    assert taken(redis, store) == first


def test_a_caller_runs_no_more_than_it_may(redis: SyncRedis, store: JobStore) -> None:
    limited = put(store, caller="limited", max_running=2)
    other = put(store, caller="other")
    assert taken(redis, store, running={"limited": 2}) == other
    assert taken(redis, store, running={"limited": 2}) == ""
    assert taken(redis, store, running={"limited": 1}) == limited
    assert taken(redis, store) is None


def test_a_job_that_was_put_back_counts_too(redis: SyncRedis, store: JobStore) -> None:
    """As after it gave way to another job of its caller."""
    ids = [put(store, caller="limited", max_running=1) for _ in range(2)]
    other = put(store, caller="other")
    for job_id in reversed(ids):
        redis.zrem(names.hint_key(QUEUE, "limited"), job_id)
        redis.lrem(store.queue(QUEUE).key, 0, job_id)
        redis.lpush(store.queue(QUEUE).key, job_id)
    assert taken(redis, store, running={"limited": 1}) == other
    assert taken(redis, store, running={"limited": 1}) == ""
    assert all_taken(redis, store) == ids


def taken_id(taken: Taken | Literal[False] | None) -> str:
    assert taken, "no job was taken"
    return taken.job_id


def test_a_caller_runs_no_more_than_it_may_in_both_classes(
    redis: SyncRedis, store: JobStore
) -> None:
    """The other consumer takes before the first has started what it took."""
    fair_use = FairUse(output_weight=2)
    classes: tuple[JobClass, ...] = ("interactive", "batch")
    queues = {one: store.queue(class_queue("0", one)) for one in classes}
    takers = {
        one: Taker(redis, queues[one], f"0.{one}.w", "", Order(one, use=fair_use.of(one)))
        for one in classes
    }
    ids = [put(store, caller="a", max_running=1, job_class=one) for one in classes]
    assert taken_id(takers["interactive"].take(())) == ids[0]
    assert takers["batch"].take(()) is False
    first = CallersJob(ids[0], "a", "interactive")
    fair_use.begin(first)
    assert takers["batch"].take(()) is False
    fair_use.end(first)
    assert takers["interactive"].take(()) is None
    assert taken_id(takers["batch"].take(())) == ids[1]


def test_what_was_put_back_goes_first(redis: SyncRedis, store: JobStore) -> None:
    first, second = put(store, caller="a"), put(store, caller="b", priority=-100)
    redis.lrem(store.queue(QUEUE).key, 0, first)
    redis.zrem(names.hint_key(QUEUE, "a"), first)
    redis.lpush(store.queue(QUEUE).key, first)
    assert all_taken(redis, store) == [first, second]


def test_the_list_is_the_truth(redis: SyncRedis, store: JobStore) -> None:
    """A hint without entry is dropped, an entry without hint is found."""
    gone, here = put(store), put(store)
    redis.lrem(store.queue(QUEUE).key, 0, gone)
    foreign = put(store)
    redis.zrem(names.hint_key(QUEUE, ""), foreign)
    assert all_taken(redis, store) == [here, foreign]
    assert not redis.keys("mgs:hint*")
    put(store)
    redis.delete(store.queue(QUEUE).key)
    assert taken(redis, store) is None
    assert not redis.keys("mgs:hint*")


def test_a_deadline_orders_the_jobs_of_its_caller(redis: SyncRedis, store: JobStore) -> None:
    easy = put(store)
    distant = put(store, deadline_at=time.time() + 3600)
    soon = put(store, deadline_at=time.time() + 5)
    assert all_taken(redis, store) == [soon, easy, distant]


def test_a_held_class_gives_nothing_and_a_drained_one_takes_nothing(
    redis: SyncRedis, store: JobStore
) -> None:
    job_id = put(store)
    redis.hset(names.hold_key("0"), "interactive", "hold")
    assert taken(redis, store) is None
    put(store, job_class="batch")
    redis.hset(names.hold_key("0"), "interactive", "drain")
    with pytest.raises(ModelDrainingError, match="interactive"):
        put(store)
    redis.hdel(names.hold_key("0"), "interactive")
    assert taken(redis, store) == job_id


def test_a_line_of_a_batch_is_in_no_list_and_under_no_limit(
    redis: SyncRedis, store: JobStore
) -> None:
    line = put(store, job_class="batch", batch="batch_1", line=7, caller="a")
    assert redis.zscore(names.JOB_INDEX, line) is None
    assert redis.zscore(names.LIVE, line) is None
    assert redis.zscore(names.JOB_EXPIRY, line) is not None
    record = store.record(line)
    assert (record.queue, record.batch, record.line) == ("mgs-batch-0", "batch_1", 7)


@pytest.fixture
def running(redis: SyncRedis, store: JobStore) -> str:
    job_id = put(store, job_class="batch")
    open_attempt(redis, WORKER, job_id)
    return job_id


def taker(redis: SyncRedis, store: JobStore) -> Taker:
    return Taker(redis, store.queue("mgs-batch-0"), WORKER, "")


def test_a_job_handed_back_waits_at_the_front_as_if_nothing_had_been(
    redis: SyncRedis, store: JobStore, running: str
) -> None:
    put(store, job_class="batch")
    assert taker(redis, store).hand_back(running, 1) == HandedBack(True)
    assert taker(redis, store).hand_back(running, 1) == HandedBack(True), "sent twice"
    record = store.record(running)
    assert (record.status, record.worker, record.yields) == (JobStatus.QUEUED, "", 1)
    assert (record.attempt, record.deaths) == (1, 0)
    assert redis.lrange(store.queue("mgs-batch-0").key, 0, 0) == [running.encode()]
    assert not store.claims("0")
    assert redis.hget(f"rq:job:{running}", "status") == b"queued"
    again = open_attempt(redis, WORKER, running)
    assert (again.attempt, again.yields, again.job_class) == (2, 1, "batch")


def test_only_its_worker_hands_a_job_back_and_only_its_attempt(
    redis: SyncRedis, store: JobStore, running: str
) -> None:
    assert taker(redis, store).hand_back(running, 7) == HandedBack(False)
    other = Taker(redis, store.queue("mgs-batch-0"), "0.gen.other", "")
    assert other.hand_back(running, 1) == HandedBack(False)
    assert store.record(running).status is JobStatus.RUNNING


def test_a_cancelled_job_is_not_handed_back(
    redis: SyncRedis, store: JobStore, running: str
) -> None:
    store.cancel(running, "no more")
    assert taker(redis, store).hand_back(running, 1) == HandedBack(False, "no more")
    assert store.record(running).status is JobStatus.RUNNING
