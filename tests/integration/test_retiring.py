"""Models that nobody wants: what was theirs is ended and forgotten, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from rq import Queue
from rq.registry import FailedJobRegistry, FinishedJobRegistry

import workers.rq_bridge.queue_consumer
from jobs.contract.errors import ModelUnloadedError
from jobs.contract.events import EventKind
from jobs.contract.records import DesiredModel
from jobs.contract.requests import LoadRequest, Prompt, TokenCountRequest
from jobs.storage import names
from jobs.storage.connection import SyncRedis, connect
from jobs.storage.desired_models import DesiredModels
from jobs.storage.store import JobStore
from tests.helpers.consumer_rig import running_consumer
from tests.helpers.queues import submit
from tests.helpers.samples import event
from tests.helpers.supervised import supervised
from tests.helpers.taking import WORKER, claimed, open_attempt, take
from tests.helpers.waiting import wait_until
from workers.supervision.recovery import Recovery

UNLOADED = ModelUnloadedError("the model is not loaded")


def drain(recovery: Recovery, slug: str = "0", *, is_desired: bool = False) -> bool:
    """What a supervisor does for a model that nobody wants and nobody runs."""
    recovery.settle_jobs_of(slug, None, UNLOADED, has_crashed=False)
    return recovery.drain(slug, UNLOADED, lambda: is_desired)


def keys_of(redis: SyncRedis, slug: str) -> set[str]:
    """Keys of the model, but for those of its jobs and for what expires."""
    queues = names.queues_of(slug)
    found = {key.decode() for key in redis.scan_iter() if redis.ttl(key) == -1}
    return {key for key in found if any(queue in key for queue in queues)}


def registered(redis: SyncRedis) -> set[str]:
    """Names of the queues that RQ lists."""
    return {key.decode().rpartition(":")[2] for key in redis.smembers(Queue.redis_queues_keys)}


def test_a_model_is_known_from_its_first_job_on(store: JobStore) -> None:
    assert store.slugs() == set()
    submit(store, model_id="my model")
    submit(store, TokenCountRequest(Prompt(text="x")))
    assert store.slugs() == {names.slug_of("my model"), "0"}


def test_what_waits_for_an_unwanted_model_is_ended_and_the_model_forgotten(
    store: JobStore, recovery: Recovery
) -> None:
    ids = [submit(store), submit(store, TokenCountRequest(Prompt(text="x")))]
    assert registered(store.redis) == {"mgs-gen-0", "mgs-ctl-0"}
    assert drain(recovery)
    assert [store.record(job_id).error_code for job_id in ids] == ["model_unloaded"] * 2
    assert store.slugs() == set()
    assert registered(store.redis) == set()
    assert keys_of(store.redis, "0") == set()
    assert not store.redis.exists(names.claims_key("0"))


def test_a_model_that_is_wanted_again_keeps_its_jobs(store: JobStore, recovery: Recovery) -> None:
    """A load is written before its job is queued: whoever sees the job sees the load."""
    job_id = submit(store)
    assert not drain(recovery, is_desired=True)
    assert store.queue("mgs-gen-0").get_job_ids() == [job_id]
    assert store.slugs() == {"0"}


def test_a_wanted_model_is_not_forgotten_though_nothing_waits(store: JobStore) -> None:
    store.cancel(submit(store), "enough")
    desired = DesiredModel("0", "uid", LoadRequest("fake", "fake"), "load-1", 1.0)
    assert DesiredModels(store.redis).put("0", desired)
    assert not store.retire("0")
    assert store.slugs() == {"0"}


@pytest.mark.parametrize("place", ["on the queue", "on its way", "running"])
def test_a_model_with_a_job_is_not_forgotten(store: JobStore, place: str) -> None:
    job_id = submit(store)
    if place != "on the queue":
        take(store.redis, WORKER, job_id)
    if place == "running":
        store.redis.delete(store.queue("mgs-gen-0").intermediate_queue_key)
    before = {key: store.redis.dump(key) for key in store.redis.scan_iter()}
    assert not store.retire("0")
    assert {key: store.redis.dump(key) for key in store.redis.scan_iter()} == before


def test_a_job_that_comes_after_makes_the_model_known_again(
    store: JobStore, recovery: Recovery
) -> None:
    submit(store)
    assert drain(recovery)
    job_id = submit(store)
    assert store.slugs() == {"0"}
    assert registered(store.redis) == {"mgs-gen-0"}
    assert drain(recovery)
    assert store.record(job_id).error_code == "model_unloaded"


def test_ids_without_a_record_of_ours_stay_where_they_are(
    store: JobStore, recovery: Recovery
) -> None:
    redis, queue = store.redis, store.queue("mgs-gen-0")
    redis.rpush(queue.key, "foreign-1")
    ours, taken = submit(store), submit(store)
    take(redis, WORKER, taken)
    redis.rpush(queue.key, "foreign-2")
    redis.rpush(queue.intermediate_queue_key, "foreign-3")
    for _ in range(2):
        assert not drain(recovery), "others use this queue"
        assert redis.lrange(queue.key, 0, -1) == [b"foreign-1", b"foreign-2"]
        assert redis.lrange(queue.intermediate_queue_key, 0, -1) == [b"foreign-3"]
    assert [store.record(job_id).error_code for job_id in (ours, taken)] == ["model_unloaded"] * 2
    assert claimed(redis) == set()


def test_what_rq_shows_of_a_forgotten_model_expires(store: JobStore, recovery: Recovery) -> None:
    settings = store._settings
    job_id = submit(store)
    queue = store.queue("mgs-gen-0")
    registries = [FinishedJobRegistry(queue=queue).key, FailedJobRegistry(queue=queue).key]
    for key in registries:
        store.redis.zadd(key, {job_id: 1e12})
    assert drain(recovery)
    longest = max(settings.log_ttl_s, settings.failure_ttl_s)
    for key in registries:
        assert longest - 60 < store.redis.ttl(key) <= longest


def test_a_new_worker_of_the_model_keeps_what_rq_shows(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.rq_bridge.queue_consumer, "_BLOCK_S", 0.05)
    keys = names.rq_registry_keys("mgs-gen-0")
    with connect(redis_url) as redis:
        for key in keys:
            redis.zadd(key, {"job": 1e12})
            redis.expire(key, 600)
        with running_consumer(redis_url, tmp_path) as rig:
            job_id = rig.submit()
            rig.take_begun()
            assert [redis.ttl(key) for key in keys] == [-1] * len(keys)
            rig.close(job_id, EventKind.FINISHED)
        assert [redis.ttl(key) for key in keys] == [-1] * len(keys)


def test_a_dead_workers_jobs_of_an_unwanted_model_are_ended_before_it_is_forgotten(
    store: JobStore, recovery: Recovery
) -> None:
    job_id = submit(store)
    open_attempt(store.redis, WORKER, job_id)
    store.writer.append([event(EventKind.STARTED, 1, job=job_id)])
    assert drain(recovery)
    assert store.record(job_id).error_code == "model_unloaded"
    assert claimed(store.redis) == set()
    assert store.slugs() == set()


def test_a_supervisor_looks_at_the_queues_of_our_own_models_only(
    redis_url: str, tmp_path: Path
) -> None:
    """Another application may use queues with names like ours, also with ids like ours."""
    with connect(redis_url) as redis:
        for name in ("mgs-gen-theirs", "mgs-ctl-theirs", "gen-0", "default"):
            queue = Queue(name, connection=redis)
            redis.sadd(Queue.redis_queues_keys, queue.key)
            redis.rpush(queue.key, "their-job")
            redis.rpush(queue.intermediate_queue_key, "their-other-job")
        foreign = {key: redis.dump(key) for key in redis.scan_iter()}
        with supervised(redis_url, tmp_path) as running:
            driver = running.driver
            ended = driver.submit(model_id="nobody")
            driver.wait_ended(ended)
            driver.load_ready()
            driver.wait_ended(driver.unload())
            wait_until(lambda: driver.store.slugs() == set(), "our models are forgotten")
        queues = Queue.redis_queues_keys.encode()
        left = {key: redis.dump(key) for key in foreign if key != queues}
        assert left == {key: data for key, data in foreign.items() if key != queues}
        assert registered(redis) == {"mgs-gen-theirs", "mgs-ctl-theirs", "gen-0", "default"}


def test_a_model_that_was_loaded_and_unloaded_leaves_nothing_that_stays(
    redis_url: str, tmp_path: Path
) -> None:
    with supervised(redis_url, tmp_path) as running:
        driver = running.driver
        for model_id in ("0", "my model"):
            driver.load_ready(model_id=model_id)
            driver.wait_ended(driver.submit(model_id=model_id))
            driver.wait_ended(driver.unload(model_id))
        wait_until(lambda: driver.store.slugs() == set(), "both are forgotten")
        for model_id in ("0", "my model"):
            assert keys_of(driver.redis, names.slug_of(model_id)) == set()
        assert registered(driver.redis) == set()
        wait_until(lambda: not driver.redis.keys(names.owner_key("*")), "and free for anybody")
        stays = {key.decode() for key in driver.redis.scan_iter() if driver.redis.ttl(key) == -1}
        assert stays <= {
            names.JOB_INDEX, names.JOB_EXPIRY, names.LIVE, names.TOTALS, names.NODE_INDEX,
            names.STORAGE_MARK, names.LAYOUT, names.LAST_EXPIRY,
        }  # fmt: skip
