"""How many jobs may wait and run: counted in Redis, for every API process, and never leaked."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.contract.errors import TooManyJobsError
from jobs.contract.events import EventKind
from jobs.contract.requests import LoadRequest, Prompt, TokenCountRequest, UnloadRequest
from jobs.keys.caller import caller_of
from jobs.storage import names
from jobs.storage.connection import connect
from jobs.storage.store import JobStore
from tests.helpers.samples import event, generate, settings_for, submission
from tests.helpers.supervised import supervised
from tests.helpers.taking import WORKER, open_attempt
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig, check_error_shape, running_api

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def open_store(redis_url: str, tmp_path: Path) -> Iterator[Callable[..., JobStore]]:
    clients = []

    def make(**changes) -> JobStore:
        clients.append(connect(redis_url))
        return JobStore(clients[-1], settings_for(redis_url, tmp_path, **changes))

    yield make
    for client in clients:
        client.close()


def submit(store: JobStore, caller: str = "a", request=None, **fields) -> str:
    new = submission(request, caller=caller, **fields)
    store.submit(new)
    return new.job_id


def live(store: JobStore) -> list[int]:
    """How many jobs count, of all and of the callers a and b."""
    keys = (names.LIVE, names.live_key("a"), names.live_key("b"))
    return [store.redis.zcard(key) for key in keys]


def start(store: JobStore, job_id: str) -> None:
    open_attempt(store.redis, WORKER, job_id)


def test_two_api_processes_never_let_in_more_than_the_limit(
    open_store: Callable[..., JobStore],
) -> None:
    stores = [open_store(max_jobs=10) for _ in range(4)]

    def try_some(store: JobStore) -> int:
        accepted = 0
        for _ in range(10):
            try:
                submit(store)
                accepted += 1
            except TooManyJobsError:
                continue
        return accepted

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(try_some, stores)) == 10
    assert live(stores[0]) == [10, 10, 0]
    assert stores[0].queue("mgs-gen-0").count == 10


def test_the_limit_of_a_key_leaves_the_others_alone(open_store: Callable[..., JobStore]) -> None:
    store = open_store(max_jobs_per_key=2)
    for _ in range(2):
        submit(store, "a")
    with pytest.raises(TooManyJobsError, match="2 jobs of this key"):
        submit(store, "a")
    submit(store, "b")
    assert live(store) == [3, 2, 1]


def test_a_refused_job_leaves_nothing_behind(open_store: Callable[..., JobStore]) -> None:
    store = open_store(max_jobs=1)
    submit(store)
    before = sorted(store.redis.keys())
    with pytest.raises(TooManyJobsError):
        submit(store, "b", job_id="one-too-many")
    assert sorted(store.redis.keys()) == before
    assert store.queue("mgs-gen-0").count == 1


@pytest.mark.parametrize("kind", [EventKind.FINISHED, EventKind.FAILED, EventKind.CANCELLED])
def test_every_end_of_a_running_job_gives_its_place_back(
    open_store: Callable[..., JobStore], kind: EventKind
) -> None:
    store = open_store(max_jobs=1, max_jobs_per_key=1)
    job_id = submit(store)
    start(store, job_id)
    with pytest.raises(TooManyJobsError):
        submit(store)
    end = event(kind, job=job_id, error=None)
    assert store.writer.settle(end)
    assert store.writer.settle(end), "told twice after a lost reply"
    assert live(store) == [0, 0, 0]
    submit(store)


def test_a_cancelled_or_purged_job_gives_its_place_back(
    open_store: Callable[..., JobStore],
) -> None:
    store = open_store()
    store.cancel(submit(store), "enough")
    submit(store, "b")
    assert live(store) == [1, 0, 1]
    assert store.purge("0", -1.0) == (1, 0)
    assert live(store) == [0, 0, 0]


def test_token_counts_count_and_loads_do_not(open_store: Callable[..., JobStore]) -> None:
    store = open_store(max_jobs=1)
    submit(store, request=TokenCountRequest(Prompt(text="x")), job_id="tok-1")
    for number, request in enumerate([LoadRequest("fake", "fake"), UnloadRequest()]):
        submit(store, request=request, job_id=f"manage-{number}")
    with pytest.raises(TooManyJobsError):
        submit(store)


def test_a_job_whose_record_is_gone_does_not_hold_its_place(
    open_store: Callable[..., JobStore],
) -> None:
    store = open_store(max_jobs=2, max_jobs_per_key=2)
    for _ in range(2):
        store.redis.delete(names.job_key(submit(store)))
    submit(store)
    assert live(store)[:2] == [1, 1]


def test_no_count_outlives_its_jobs_for_ever(open_store: Callable[..., JobStore]) -> None:
    store = open_store()
    submit(store)
    old = {"forgotten": 1.0}
    store.redis.zadd(names.LIVE, old)
    store.redis.zadd(names.live_key("a"), old)
    submit(store)
    assert live(store) == [2, 2, 0]


@pytest.fixture
def limited(tmp_path: Path, redis_url: str) -> Iterator[Rig]:
    keys = {"api_key": "user-key", "management_key": "manager-key"}
    with running_api(tmp_path, redis_url, max_jobs=3, max_jobs_per_key=1, **keys) as rig:
        rig.load()
        yield rig


def test_beyond_the_limit_of_its_key_a_client_gets_a_429_at_once(limited: Rig) -> None:
    waiting = limited.post_soon(CHAT, HELLO, X_Api_Key="user-key")
    wait_until(limited.waiting_ids, "one job waits")
    answer = limited.post(CHAT, HELLO, X_Api_Key="user-key")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    check_error_shape(answer.json())
    assert answer.json()["error"]["code"] == "too_many_jobs"
    assert answer.elapsed.total_seconds() < 0.5
    other = limited.post_soon(CHAT, HELLO, X_Api_Key="manager-key")
    for future in (waiting, other):
        limited.take().answer("x")
        assert future.result().status_code == 200
    again = limited.post_soon(CHAT, HELLO, X_Api_Key="user-key")
    limited.take().answer("x")
    assert again.result().status_code == 200


def test_background_jobs_count_too(limited: Rig) -> None:
    body = {**HELLO, "background": True}
    assert limited.post(CHAT, body, X_Api_Key="user-key").status_code == 202
    assert limited.post(CHAT, body, X_Api_Key="user-key").status_code == 429
    assert limited.post(CHAT, body, X_Api_Key="manager-key").status_code == 202


def test_no_key_is_stored_in_clear(limited: Rig) -> None:
    body = {**HELLO, "background": True}
    assert limited.post(CHAT, body, X_Api_Key="user-key").status_code == 202
    caller = caller_of("user-key")
    assert limited.redis.exists(names.live_key(caller))
    for key in limited.redis.scan_iter():
        assert b"user-key" not in key + limited.redis.dump(key)


@pytest.mark.parametrize("loss", ["resume", "fail"])
def test_a_killed_worker_leaks_no_count(redis_url: str, tmp_path: Path, loss: str) -> None:
    with supervised(redis_url, tmp_path) as running:
        driver = running.driver
        pid = driver.load_ready("fake-20ms").pid
        ids = [driver.generate("x", 50, on_worker_loss=loss) for _ in range(3)]
        driver.wait_running(ids[0])
        assert driver.redis.zcard(names.LIVE) == 3
        os.kill(pid, signal.SIGKILL)
        for job_id in ids:
            driver.wait_ended(job_id)
        assert driver.redis.zcard(names.LIVE) == 0
        assert not driver.redis.keys(names.live_key("*"))


def test_a_dead_api_leaks_no_count(redis_url: str, tmp_path: Path) -> None:
    with supervised(redis_url, tmp_path, MGS_ORPHAN_S="5") as running:
        driver = running.driver
        driver.load_ready("fake-20ms", slots=1)
        driver.redis.sadd(names.APIS, "dead")
        endless = [submission(generate("x", 5000), owner="dead", caller="a") for _ in range(2)]
        for new in endless:
            driver.store.submit(new)
        assert driver.redis.zcard(names.LIVE) == 2
        wait_until(lambda: driver.redis.zcard(names.LIVE) == 0, "the orphans have ended")
