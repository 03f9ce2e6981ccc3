"""The contract with RQ: what our worker replaces still fits what RQ does around it.

When RQ is upgraded and one of these fails, read the function of RQ that the override names.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator

import pytest
import rq.registry
from rq import Worker
from rq.command import send_stop_job_command
from rq.job import JobStatus as RqStatus
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.suspension import resume, suspend

import workers.rq_bridge.queue_consumer
import workers.rq_bridge.rq_records
from jobs.contract.events import EventKind
from jobs.storage import names
from jobs.storage.connection import connect
from tests.helpers.consumer_rig import ConsumerRig, running_consumer
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.usefixtures("short_block")


@pytest.fixture
def rig(redis_url: str, tmp_path) -> Iterator[ConsumerRig]:
    with running_consumer(redis_url, tmp_path) as running:
        yield running


def test_no_job_is_taken_while_there_is_no_room(redis_url: str, tmp_path) -> None:
    with running_consumer(redis_url, tmp_path, slots=1) as rig:
        first, second = rig.submit(), rig.submit()
        assert rig.take().id == first
        wait_until(lambda: rig.num_waits >= 2, "the loop asks for room again")
        assert [item.decode() for item in rig.redis.lrange(rig.queue.key, 0, -1)] == [second]
        rig.close(first)
        assert rig.take().id == second


def test_an_empty_queue_does_not_end_the_loop(rig: ConsumerRig) -> None:
    wait_until(lambda: rig.num_waits >= 3, "the loop has seen an empty queue twice")
    job_id = rig.submit()
    assert rig.take().id == job_id


def test_the_worker_is_busy_while_any_of_its_jobs_runs(rig: ConsumerRig) -> None:
    ids = [rig.submit() for _ in range(3)]
    for _ in ids:
        rig.take_begun()
    (worker,) = Worker.all(rig.redis, serializer=JSONSerializer)
    assert {run.job_id for run in worker.get_current_executions()} == set(ids)
    for job_id in ids:
        assert rig.worker_fields()["state"] == "busy"
        rig.close(job_id)
    assert rig.worker_fields()["state"] == "idle"
    assert rig.consumer.executions == {}


def test_a_running_job_is_where_rq_looks_for_it(rig: ConsumerRig) -> None:
    job_id = rig.submit()
    rig.take_begun()
    job = rig.fetch(job_id)
    assert job.get_status() is RqStatus.STARTED
    assert job.worker_name == rig.consumer.name
    assert rig.queue.started_job_registry.get_job_ids(cleanup=False) == [job_id]
    assert rig.redis.llen(rig.queue.intermediate_queue_key) == 0
    assert rig.redis.llen(rig.queue.key) == 0


def test_a_job_that_outlives_its_lease_is_never_given_away(
    monkeypatch: pytest.MonkeyPatch, redis_url: str, tmp_path
) -> None:
    monkeypatch.setattr(workers.rq_bridge.rq_records, "LEASE_S", 2)
    with running_consumer(redis_url, tmp_path) as rig:
        job_id = rig.submit()
        rig.take_begun()
        start = rig.redis.time()[0]

        def outlived() -> bool:
            rig.consumer.send_heartbeat()
            registry = StartedJobRegistry(queue=rig.queue)
            assert registry.count == 1, "counting, as `rq info` does, gave the job away"
            assert Worker.count(rig.redis) == 1
            return bool(rig.redis.time()[0] >= start + 6)

        wait_until(outlived, "three leases have passed")
        assert rig.fetch(job_id).get_status() is RqStatus.STARTED
        assert rig.worker_fields()["state"] == "busy"


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_wrong_by_an_hour_moves_no_lease(
    monkeypatch: pytest.MonkeyPatch, rig: ConsumerRig, hours: int
) -> None:
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + 3600 * hours)
    monkeypatch.setattr(rq.registry, "current_timestamp", lambda: int(time.time()))
    rig.consumer.send_heartbeat()
    job_id = rig.submit()
    rig.take_begun()
    for _ in range(2):  # as it began, and as a heartbeat has renewed it
        ((_, until),) = rig.redis.zrange(
            StartedJobRegistry(queue=rig.queue).key, 0, -1, withscores=True
        )
        assert until == pytest.approx(
            rig.redis.time()[0] + workers.rq_bridge.rq_records.LEASE_S, abs=10
        )
        rig.consumer.send_heartbeat()
    assert rig.fetch(job_id).get_status() is RqStatus.STARTED


def test_without_a_heartbeat_the_lease_ends(
    monkeypatch: pytest.MonkeyPatch, redis_url: str, tmp_path
) -> None:
    """The counter-proof of the test above: the lease is what keeps the job."""
    monkeypatch.setattr(workers.rq_bridge.rq_records, "LEASE_S", 1)
    with running_consumer(redis_url, tmp_path) as rig:
        rig.submit()
        rig.take_begun()
        registry = StartedJobRegistry(queue=rig.queue)
        wait_until(lambda: registry.count == 0, "RQ gives the job up")


@pytest.mark.parametrize("index", [0, 1, 2])
def test_rqs_own_stop_command_reaches_any_of_several_jobs(rig: ConsumerRig, index: int) -> None:
    ids = [rig.submit() for _ in range(3)]
    for _ in ids:
        rig.take_begun()
    send_stop_job_command(rig.redis, ids[index], serializer=JSONSerializer)
    assert rig.stopped.get(timeout=20) == (ids[index], "stopped by command")


def test_a_thousand_malformed_commands_do_not_make_it_deaf(rig: ConsumerRig) -> None:
    channel = rig.consumer.pubsub_channel_name
    wait_until(lambda: rig.redis.publish(channel, "{}"), "the command channel is open")
    bad = [
        "not json", "[]", "{}", "null", "1", '"stop-job"', '{"command": []}', b"\xff\xfe",
        '{"command": "stop-job"}', '{"command": "stop-job", "job_id": 7}',
        '{"command": "shutdown"}', '{"command": "kill-horse"}', "[" * 100_000, "x" * 1_000_000,
    ]  # fmt: skip
    with rig.redis.pipeline(transaction=False) as pipe:
        for number in range(1000):
            pipe.publish(channel, bad[number % len(bad)] if number < 200 else bad[number % 12])
        assert pipe.execute() == [1] * 1000
    rig.store.send_stop(rig.consumer.name, "cmpl-1", "now")
    assert rig.stopped.get(timeout=20) == ("cmpl-1", "now")
    assert rig.thread.is_alive()


def test_a_reason_that_is_no_text_becomes_one(rig: ConsumerRig) -> None:
    """A lone surrogate cannot be written as JSON: it would end the thread that sends events."""
    channel = rig.consumer.pubsub_channel_name
    command = r'{"command": "stop-job", "job_id": "j", "reason": "\ud800"}'
    wait_until(lambda: rig.redis.publish(channel, command), "the command channel is open")
    assert rig.stopped.get(timeout=20) == ("j", "?")


def test_the_loop_leaves_the_processs_signals_alone(redis_url: str, tmp_path) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    rig = ConsumerRig(redis_url, tmp_path)

    def run_one_and_stop() -> None:
        rig.submit()
        rig.take()
        rig.stop_loop()

    stopper = threading.Timer(0, run_one_and_stop)
    rig.thread = stopper
    rig.books.start()
    stopper.start()
    rig.consumer.work()  # in the main thread, where RQ would install its own
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    rig.stop()


def test_finished_jobs_are_where_rq_shows_them_and_expire(rig: ConsumerRig) -> None:
    job_id = rig.submit()
    rig.take_begun()
    rig.close(job_id)
    job = rig.fetch(job_id)
    assert job.get_status() is RqStatus.FINISHED
    assert job_id in rig.queue.finished_job_registry
    assert job.return_value()["completion_tokens"] == 5
    assert job.meta["phase"] == "finished"
    assert 0 < rig.redis.ttl(job.key) <= 3600
    assert rig.redis.zcard(rig.queue.started_job_registry.key) == 0


def test_a_job_that_is_over_before_it_was_noted_as_running_is_noted_as_finished_only(
    redis_url: str, tmp_path
) -> None:
    with running_consumer(redis_url, tmp_path, is_begun=False) as rig:
        job_id = rig.submit()
        rig.take()
        rig.close(job_id)
        job = rig.fetch(job_id)
        assert job.get_status() is RqStatus.FINISHED
        assert job.worker_name == rig.consumer.name
        assert job.started_at is not None
        assert job.ended_at is not None
        assert job.latest_result().return_value["phase"] == "finished"
        assert rig.queue.finished_job_registry.get_job_ids(cleanup=False) == [job_id]
        assert rig.redis.llen(rig.queue.intermediate_queue_key) == 0
        assert rig.redis.smembers(names.claims_key("0")) == set()
        assert rig.redis.keys("rq:execution*") == []
        assert job_id not in rig.consumer.in_hand


@pytest.mark.parametrize("kind", [EventKind.FAILED, EventKind.CANCELLED])
def test_one_that_fails_before_that_has_run_all_the_same(
    redis_url: str, tmp_path, kind: EventKind
) -> None:
    with running_consumer(redis_url, tmp_path, is_begun=False) as rig:
        job_id = rig.submit()
        rig.take()
        rig.close(job_id, kind)
        assert rig.fetch(job_id).get_status() in (RqStatus.FAILED, RqStatus.STOPPED)
        assert rig.consumer.executions == {}
        assert rig.worker_fields()["state"] == "idle"
        assert job_id not in rig.consumer.in_hand


def test_failed_jobs_are_where_rq_shows_them_with_their_reason(rig: ConsumerRig) -> None:
    job_id = rig.submit()
    rig.take_begun()
    rig.close(job_id, EventKind.FAILED)
    job = rig.fetch(job_id)
    assert job.get_status() is RqStatus.FAILED
    assert job_id in rig.queue.failed_job_registry
    assert "it broke" in job.latest_result().exc_string
    assert job.meta["error"] == "engine_error"
    assert 0 < rig.redis.ttl(job.key) <= 86400


def test_cancelled_jobs_are_stopped_and_not_among_the_failed(rig: ConsumerRig) -> None:
    job_id, other = rig.submit(), rig.submit()
    rig.take_begun()
    rig.take_begun()
    rig.close(job_id, EventKind.CANCELLED)
    assert rig.fetch(job_id).get_status() is RqStatus.STOPPED
    assert job_id not in rig.queue.failed_job_registry
    assert rig.redis.zcard(rig.queue.failed_job_registry.key) == 0
    assert rig.fetch(other).get_status() is RqStatus.STARTED, "only the one was stopped"
    rig.close(other)


def test_an_execution_whose_job_another_has_ended_is_forgotten(rig: ConsumerRig) -> None:
    job_id = rig.submit()
    rig.take_begun()
    rig.close(job_id, is_end=False)
    assert rig.consumer.executions == {}
    assert rig.consumer.in_hand == set()
    assert rig.redis.zcard(rig.queue.started_job_registry.key) == 0


def test_no_description_and_no_argument_is_logged(
    rig: ConsumerRig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ids = [rig.submit(facts={"model": "canary"}) for _ in range(2)]
    for job_id, kind in zip(ids, (EventKind.FINISHED, EventKind.FAILED), strict=True):
        rig.take_begun()
        rig.close(job_id, kind)
    shown = [r for r in caplog.records if r.levelno >= logging.INFO and r.name != "rq.job"]
    assert not [r for r in shown if "canary" in r.getMessage()]


def test_a_suspended_worker_takes_nothing_until_it_is_resumed(redis_url: str, tmp_path) -> None:
    with connect(redis_url) as redis:
        suspend(redis)
    with running_consumer(redis_url, tmp_path) as rig:
        job_id = rig.submit()
        wait_until(lambda: rig.worker_fields().get("state") == "suspended", "it has noticed")
        assert rig.queue.get_job_ids() == [job_id]
        resume(rig.redis)
        assert rig.take().id == job_id


def test_the_loop_does_none_of_rqs_maintenance(rig: ConsumerRig) -> None:
    """A lost reply there would end it, and its rescue fails what it should put back."""
    rig.redis.rpush(rig.queue.intermediate_queue_key, "cmpl-left")
    job_id = rig.submit()
    rig.take_begun()
    rig.close(job_id)
    assert rig.redis.keys("rq:clean_registries*") == []
    assert rig.redis.keys("rq:intermediate*") == []


def test_old_entries_leave_rqs_registries(rig: ConsumerRig) -> None:
    registries = (rig.queue.finished_job_registry, rig.queue.failed_job_registry)
    for registry in registries:
        rig.redis.zadd(registry.key, {"old": 1, "new": 1e12})
    rig.consumer.clean()
    assert [rig.redis.zrange(r.key, 0, -1) for r in registries] == [[b"new"], [b"new"]]


def test_a_stopped_loop_leaves_rqs_lists(redis_url: str, tmp_path) -> None:
    with running_consumer(redis_url, tmp_path) as rig:
        wait_until(lambda: Worker.count(rig.redis) == 1, "the worker is listed")
    with running_consumer(redis_url, tmp_path) as other:
        wait_until(lambda: Worker.count(other.redis) == 1, "only the new one is listed")


def test_the_executions_of_a_stopped_worker_stay_for_its_undertaker(
    redis_url: str, tmp_path
) -> None:
    with running_consumer(redis_url, tmp_path) as rig:
        job_id = rig.submit()
        rig.take_begun()
        rig.consumer.register_death()
        members = rig.redis.smembers(f"{rig.consumer.key}:executions")
        assert [member.decode().split(":")[0] for member in members] == [job_id]
