"""A job that a worker hands back: its release concerns that attempt only, never the next one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from jobs.contract.records import JobStatus
from tests.helpers.consumer_rig import GET_S, ConsumerRig, running_consumer
from tests.helpers.samples import generate
from tests.helpers.taking import claimed
from tests.helpers.waiting import wait_until
from workers.generation.attempts import AttemptOpener
from workers.rq_bridge.taking import Order


@pytest.fixture
def rig(redis_url: str, tmp_path: Path) -> Iterator[ConsumerRig]:
    order = Order("batch")
    with running_consumer(redis_url, tmp_path, queue="mgs-batch-0", order=order) as found:
        yield found


def run(rig: ConsumerRig) -> str:
    """The next job that the consumer takes, with an open attempt."""
    job_id = rig.take().id
    assert AttemptOpener(rig.redis, rig.consumer.name).open(job_id) is not None
    return job_id


def unexpected(reason: str) -> None:
    raise AssertionError(reason)


def test_a_wake_up_that_fails_does_not_concern_the_next_attempt(
    rig: ConsumerRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    wake, is_done, num_calls = rig.consumer.wake, threading.Event(), 0

    def flaky() -> None:
        nonlocal num_calls
        num_calls += 1
        if num_calls == 1:
            run(rig)  # the consumer has taken the job again
            raise RedisConnectionError("lost")
        wake()
        is_done.set()

    monkeypatch.setattr(rig.consumer, "wake", flaky)
    job_id = rig.submit(generate("x", 5), job_class="batch")
    run(rig)
    rig.books.hand_back(job_id, 1, unexpected)
    assert is_done.wait(GET_S)
    rig.flush()
    record = rig.store.record(job_id)
    assert (record.status, record.attempt, record.yields) == (JobStatus.RUNNING, 2, 1)
    assert claimed(rig.redis) == {(rig.consumer.name, job_id)}
    assert rig.consumer.in_hand == {job_id}
    rig.close(job_id)
    assert not claimed(rig.redis)
    assert not rig.consumer.in_hand


def test_a_job_that_another_attempt_has_is_released(rig: ConsumerRig) -> None:
    job_id = rig.submit(generate("x", 5), job_class="batch")
    run(rig)
    rig.books.hand_back(job_id, 7, unexpected)
    wait_until(lambda: not rig.consumer.in_hand, "the release", GET_S)
    assert not claimed(rig.redis)
    assert rig.store.record(job_id).yields == 0


def test_a_cancelled_job_stays_with_its_worker_until_it_has_ended(rig: ConsumerRig) -> None:
    job_id = rig.submit(generate("x", 5), job_class="batch")
    run(rig)
    rig.store.cancel(job_id, "enough")
    reasons: list[str] = []
    rig.books.hand_back(job_id, 1, reasons.append)
    wait_until(lambda: bool(reasons), "the reason", GET_S)
    assert reasons == ["enough"]
    assert claimed(rig.redis) == {(rig.consumer.name, job_id)}
    assert rig.consumer.in_hand == {job_id}
