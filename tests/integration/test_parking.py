"""A model is parked in one step, and only when nothing of it is taken or waits."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from jobs.contract.records import DesiredModel
from jobs.contract.requests import EmbedRequest, LoadRequest, Prompt
from jobs.storage import names
from jobs.storage.connection import SyncRedis
from jobs.storage.desired_models import DesiredModels
from jobs.storage.fence import OwnershipLostError
from jobs.storage.residency.parking import Demand, Parking
from jobs.storage.store import JobStore
from tests.helpers.samples import settings_for, submission
from tests.helpers.taking import take

OWNER, WORKERS = "node|token", ["0.gen.aa", "0.ctl.aa"]
DESIRED = DesiredModel("0", "u1", LoadRequest("fake", "fake"), "load-1", 1.0, was_ready=True)


@pytest.fixture
def store(redis: SyncRedis, redis_url: str, tmp_path: Path) -> JobStore:
    DesiredModels(redis).put("0", DESIRED)
    redis.set(names.owner_key("0"), OWNER)
    return JobStore(redis, settings_for(redis_url, tmp_path))


def park(store: JobStore, uid: str = "u1", owner: str = OWNER, **options: bool) -> bool:
    return Parking(store).park("0", uid, WORKERS, owner, **options) is not None


def is_parked(store: JobStore) -> bool:
    found = DesiredModels(store.redis).get("0")
    assert found is not None
    return found.is_parked


def test_an_idle_model_is_parked_and_its_worker_takes_nothing_more(store: JobStore) -> None:
    assert park(store)
    assert is_parked(store)
    assert [store.redis.get(names.take_key(one)) for one in WORKERS] == [b"dead", b"dead"]
    assert park(store), "the same step again, after a lost reply"


def test_a_waiting_job_prevents_it_unless_the_model_is_closed(store: JobStore) -> None:
    store.submit(submission())
    assert not park(store)
    assert not is_parked(store)
    assert park(store, with_waiting_jobs=True)


def test_a_taken_job_prevents_it_in_any_case(store: JobStore, redis: SyncRedis) -> None:
    job = submission()
    store.submit(job)
    take(redis, WORKERS[0], job.job_id)
    for options in ({}, {"with_waiting_jobs": True}):
        assert not park(store, **options)
    assert redis.get(names.take_key(WORKERS[0])) is None


def test_a_job_that_lies_in_an_intermediate_list_prevents_it(store: JobStore) -> None:
    job = submission()
    store.submit(job)
    queue = store.queue(names.generation_queue("0"))
    store.redis.lmove(queue.key, queue.intermediate_queue_key)
    assert not park(store, with_waiting_jobs=True)


def test_what_is_no_job_does_not_prevent_it(store: JobStore) -> None:
    queue = store.queue(names.generation_queue("0"))
    for key in (queue.key, queue.intermediate_queue_key):
        store.redis.rpush(key, "of nobody")
    assert park(store)


def test_only_the_owner_parks_and_only_the_model_that_it_means(store: JobStore) -> None:
    with pytest.raises(OwnershipLostError):
        park(store, owner="another|one")
    assert not park(store, uid="u2")
    DesiredModels(store.redis).remove("0")
    assert not park(store)


def test_demand_is_what_is_held_and_the_oldest_that_waits(
    store: JobStore, redis: SyncRedis
) -> None:
    first, second = submission(), submission()
    before = store.now()
    for job in (first, second):
        store.submit(job)
    take(redis, WORKERS[0], first.job_id)
    redis.rpush(store.queue(names.control_queue("1")).key, "of nobody")
    found = Parking(store).demand(["0", "1", "2"])
    assert found["0"].num_held == 1
    assert before <= (found["0"].oldest_at or 0) <= time.time() + 1
    assert found["1"] == Demand(0, 0.0), "it waits to be set aside by a worker"
    assert found["2"] == Demand()


def test_demand_of_the_class_batch_is_counted_apart(store: JobStore, redis: SyncRedis) -> None:
    taken, waits = (submission(job_class="batch", batch="b", line=line) for line in (1, 2))
    for job in (taken, waits):
        store.submit(job)
    take(redis, "0.bat.aa", taken.job_id)
    found = Parking(store).demand(["0"])["0"]
    assert (found.num_held, found.oldest_at, found.num_batch_held) == (0, None, 1)
    assert found.batch_oldest_at == store.record(waits.job_id).created_at
    redis.sadd(names.claims_key("0"), b"malformed")
    assert Parking(store).demand(["0"])["0"].num_held == 1, "it is in the way of parking"


def test_an_input_of_a_batch_on_the_control_queue_hides_no_person(store: JobStore) -> None:
    embed = EmbedRequest([Prompt(text="x")])
    line = submission(embed, job_class="batch", batch="b", line=1)
    store.submit(line)
    found = Parking(store).demand(["0"])["0"]
    assert (found.oldest_at, found.batch_oldest_at is not None) == (None, True)
    person = submission(embed)
    store.submit(person)
    found = Parking(store).demand(["0"])["0"]
    assert found.oldest_at == store.record(person.job_id).created_at


@pytest.mark.parametrize("job_class", ["interactive", "batch"])
def test_jobs_of_a_class_on_hold_do_not_wait_for_their_model(
    store: JobStore, redis: SyncRedis, job_class: str
) -> None:
    store.submit(submission(job_class=job_class))
    redis.hset(names.hold_key("0"), job_class, "hold")
    assert Parking(store).demand(["0"])["0"] == Demand(has_frozen=True)
    redis.hset(names.hold_key("0"), job_class, "drain")  # those that wait still run
    found = Parking(store).demand(["0"])["0"]
    assert not found.has_frozen
    assert (found.oldest_at or found.batch_oldest_at) is not None


def test_keys_of_another_type_are_no_demand(store: JobStore, redis: SyncRedis) -> None:
    redis.set(names.claims_key("0"), "x")
    redis.set(store.queue(names.generation_queue("0")).key, "x")
    assert Parking(store).demand(["0"])["0"] == Demand()
