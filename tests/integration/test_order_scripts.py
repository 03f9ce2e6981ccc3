"""Holds and changes of priority in Redis, also when a script is sent twice."""

from __future__ import annotations

import pytest

from jobs.contract.errors import JobConflictError, ModelNotFoundError
from jobs.scheduling.holds import CLASSES, Hold, Holds
from jobs.scheduling.waiting_order import WaitingOrder
from jobs.storage import names
from jobs.storage.store import JobStore
from tests.helpers.samples import submission
from tests.helpers.taking import take

GEN = names.generation_queue("0")
WORKER = names.worker_name("0", "gen", "test")


@pytest.fixture
def holds(store: JobStore) -> Holds:
    """Of a Redis in which the model 0 is desired."""
    store.redis.hset(names.DESIRED_MODELS, "0", "{}")
    return Holds(store.redis)


def test_a_hold_that_is_repeated_keeps_its_time_and_its_name(holds: Holds) -> None:
    holds.hold("0", "hold", ["batch"], "alice")
    first = holds.read(["0"])["0", "batch"]
    holds.hold("0", "hold", ["batch"], "bob")
    assert holds.read(["0"])["0", "batch"] == first
    assert (first.state, first.by) == ("hold", "alice")
    assert holds.read(["0"])["0", "interactive"] == Hold()


def test_a_hold_that_becomes_a_drain_is_the_last_ones(holds: Holds) -> None:
    holds.hold("0", "hold", CLASSES, "alice")
    holds.hold("0", "drain", ["batch"], "bob")
    found = holds.read(["0"])
    assert (found["0", "batch"].state, found["0", "batch"].by) == ("drain", "bob")
    assert (found["0", "interactive"].state, found["0", "interactive"].by) == ("hold", "alice")


def test_a_resume_that_is_repeated_keeps_the_time_of_the_first(
    holds: Holds, store: JobStore
) -> None:
    holds.hold("0", "hold", CLASSES, "")
    assert holds.resume("0", CLASSES) == 2
    first = holds.read(["0"])
    assert all(hold.resumed_at and hold.state == "open" for hold in first.values())
    assert holds.resume("0", CLASSES) == 0
    assert holds.read(["0"]) == first
    assert store.redis.llen(names.wake_key(GEN)) == 1


def test_a_model_that_is_not_desired_is_not_held(holds: Holds, store: JobStore) -> None:
    with pytest.raises(ModelNotFoundError):
        holds.hold("gone", "hold", CLASSES, "")
    assert not store.redis.exists(names.hold_key("gone"))


@pytest.mark.parametrize("value", [b"odd", b"\xff", b""])
def test_a_hold_that_cannot_be_read_is_none(holds: Holds, store: JobStore, value: bytes) -> None:
    fields = {"batch": value, "batch:at": b"soon", "interactive": "hold", "interactive:at": "x"}
    store.redis.hset(names.hold_key("0"), mapping=fields)
    found = holds.read(["0"])
    assert found["0", "batch"] == Hold()
    assert found["0", "interactive"] == Hold("hold")
    store.redis.delete(names.hold_key("0"))
    store.redis.set(names.hold_key("0"), "of another type")
    assert set(holds.read(["0"]).values()) == {Hold()}


def test_a_change_that_is_repeated_moves_a_job_once(store: JobStore) -> None:
    store.submit(submission(job_id="a"))
    order, record = WaitingOrder(store), store.record("a")
    order.change_priority(record, 3, 10.0)
    first = store.redis.zscore(names.hint_key(GEN, ""), "a")
    order.change_priority(record, 3, 10.0)
    assert store.redis.zscore(names.hint_key(GEN, ""), "a") == first
    assert first == pytest.approx(record.created_at + 30)
    order.change_priority(record, 0, 10.0)
    assert store.redis.zscore(names.hint_key(GEN, ""), "a") == pytest.approx(record.created_at)
    assert store.record("a").priority == 0


def test_a_job_that_is_just_taken_keeps_its_priority(store: JobStore) -> None:
    store.submit(submission(job_id="a"))
    record = store.record("a")
    take(store.redis, WORKER, "a")
    with pytest.raises(JobConflictError):
        WaitingOrder(store).change_priority(record, 3, 10.0)
    assert store.record("a").priority == 0


def test_what_was_put_back_is_first_and_the_others_follow_their_hints(store: JobStore) -> None:
    for job_id, priority in (("a", 0), ("b", 5), ("c", -5)):
        store.submit(submission(job_id=job_id, priority=priority))
    store.redis.lpush(store.queue(GEN).key, "returned")
    places = WaitingOrder(store).places(GEN)
    assert places == {"returned": 1, "c": 2, "a": 3, "b": 4}
    assert WaitingOrder(store).places(names.batch_queue("0")) == {}


def test_hints_that_cannot_be_read_leave_the_order_of_the_list(store: JobStore) -> None:
    for job_id, priority in (("a", 0), ("b", -5)):
        store.submit(submission(job_id=job_id, priority=priority))
    for key in (names.hint_key(GEN, ""), names.hints_key(GEN), store.queue(GEN).key):
        store.redis.delete(key)
        store.redis.set(key, "of another type")
        expected = {} if key == store.queue(GEN).key else {"a": 1, "b": 2}
        assert WaitingOrder(store).places(GEN) == expected
