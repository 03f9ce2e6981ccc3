"""Queueing a new job at once: never lost, never twice, never beyond the limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis.connection import AbstractConnection as Connection
from redis.exceptions import ConnectionError as RedisConnectionError

from jobs.contract.errors import JobNotFoundError, QueueFullError
from jobs.contract.records import JobStatus
from jobs.contract.requests import GenerateRequest, Prompt
from jobs.contract.sampling import Sampling
from jobs.settings import Settings
from jobs.storage import names
from jobs.storage.connection import connect
from jobs.storage.store import JobStore
from jobs.storage.submitter import Submission
from tests.helpers.queues import waiting

QUEUE = names.generation_queue("0")


def submission(job_id: str) -> Submission:
    request = GenerateRequest(prompts=[Prompt(text="x")], sampling=Sampling())
    return Submission(job_id, "0", request, {"model": "fake"})


@pytest.fixture
def open_store(redis_url: str) -> Callable[..., JobStore]:
    def make(**changes: Any) -> JobStore:
        values = {"REDIS_URL": redis_url, **changes}
        return JobStore(connect(redis_url, retries=0), Settings(**values))

    return make


def test_a_new_job_is_stored_and_queued(open_store: Callable[..., JobStore]) -> None:
    store = open_store()
    store.submit(submission("one"))
    store.submit(submission("two"))
    assert waiting(store) == ["one", "two"]
    assert store.record("one").status is JobStatus.QUEUED
    assert store.request("two") == submission("two").request
    assert store.queue(QUEUE).fetch_job("one").get_status() == "queued"


@pytest.mark.parametrize("is_carried_out", [True, False])
def test_a_lost_reply_neither_loses_nor_doubles_the_job(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, is_carried_out: bool
) -> None:
    store = JobStore(connect(redis_url), Settings(REDIS_URL=redis_url))
    store.submit(submission("zero"))  # the script is loaded
    send = Connection.send_packed_command
    losses = iter([True])

    def lose_the_first(connection: Connection, *args: Any, **kwargs: Any) -> Any:
        if next(losses, False):
            if is_carried_out:
                send(connection, *args, **kwargs)
                connection.read_response()
            connection.disconnect()
            raise RedisConnectionError("the reply is lost")
        return send(connection, *args, **kwargs)

    monkeypatch.setattr(Connection, "send_packed_command", lose_the_first)
    store.submit(submission("one"))
    assert waiting(store) == ["zero", "one"]
    assert next(losses, None) is None


def test_the_job_beyond_the_limit_leaves_nothing_behind(
    open_store: Callable[..., JobStore],
) -> None:
    store = open_store(max_queued_per_model=2)
    for job_id in ("one", "two"):
        store.submit(submission(job_id))
    with pytest.raises(QueueFullError):
        store.submit(submission("three"))
    assert waiting(store) == ["one", "two"]
    with pytest.raises(JobNotFoundError):
        store.record("three")
    assert not store.redis.keys("*three*")


def test_a_job_may_be_submitted_by_two_and_is_queued_once(
    open_store: Callable[..., JobStore],
) -> None:
    first, second = open_store(), open_store()
    first.submit(submission("one"))
    second.submit(submission("one"))
    assert waiting(first) == ["one"]


def test_a_job_that_runs_already_is_not_queued_again(open_store: Callable[..., JobStore]) -> None:
    store = open_store()
    store.submit(submission("one"))
    store.redis.lpop(store.queue(QUEUE).key)
    store.submit(submission("one"))
    assert waiting(store) == []
