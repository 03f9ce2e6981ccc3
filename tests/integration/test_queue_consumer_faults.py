"""The worker's loop when Redis, or what somebody wrote into it, is not as it should be."""

from __future__ import annotations

import json
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import Worker
from rq.job import Job
from rq.serializers import JSONSerializer

import workers.rq_bridge.queue_consumer
import workers.rq_bridge.rq_records
from jobs.contract.events import EventKind
from tests.helpers.consumer_rig import ConsumerRig, running_consumer
from tests.helpers.private_redis import private_redis
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.usefixtures("short_block")


@pytest.fixture
def rig(redis_url: str, tmp_path) -> Iterator[ConsumerRig]:
    with running_consumer(redis_url, tmp_path) as running:
        yield running


class Canary:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


class TestForgedJobs:
    """Nothing that a hash in Redis names is ever imported, called or unpickled."""

    @pytest.fixture
    def canary(self, tmp_path) -> Path:
        return tmp_path / "executed"

    @pytest.fixture
    def forged(self, rig: ConsumerRig, canary: Path, listener: socket.socket) -> str:
        """A job whose every field asks to run something."""
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        job = Job.create(
            "os.system",
            args=(f"touch {canary}",),
            id="forged",
            connection=rig.redis,
            serializer=JSONSerializer,
        )
        callback = {f"{kind}_callback_name": "os.getpid" for kind in ("success", "failure")}
        fields = {
            **callback,
            "stopped_callback_name": "os.getpid",
            "webhooks": json.dumps([{"url": address, "events": ["finished", "failed"]}]),
            "meta": pickle.dumps(Canary(canary)),
        }
        with rig.redis.pipeline() as pipe:  # at once: the loop is waiting
            pipe.hset(job.key, mapping={**_hash_of(job), **fields})
            pipe.rpush(rig.queue.key, job.id)
            pipe.execute()
        return job.id

    @pytest.fixture
    def listener(self) -> Iterator[socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            yield server

    @pytest.mark.parametrize("kind", [EventKind.FINISHED, EventKind.FAILED, EventKind.CANCELLED])
    def test_no_field_of_a_forged_hash_is_obeyed(
        self, rig: ConsumerRig, canary: Path, forged: str, listener: socket.socket, kind: EventKind
    ) -> None:
        job = rig.take_begun()
        assert job.id == forged
        with pytest.raises(PermissionError):
            _ = job.func
        assert (job.success_callback, job.failure_callback, job.stopped_callback) == (None,) * 3
        rig.close(forged, kind)
        assert not canary.exists()
        with pytest.raises(BlockingIOError):
            listener.accept()
        assert rig.consumer.executions == {}
        assert rig.consumer.in_hand == set()

    def test_a_pickle_as_data_is_never_read(
        self, rig: ConsumerRig, canary: Path, forged: str
    ) -> None:
        rig.take_begun()
        rig.close(forged)
        rig.redis.hset(Job.key_for(forged), "data", pickle.dumps(Canary(canary)))
        rig.redis.rpush(rig.queue.key, forged)
        rig.take_begun()
        rig.close(forged)
        assert not canary.exists()
        assert rig.consumer.executions == {}, (
            "an execution that never ends would look busy for ever"
        )
        assert rig.consumer.in_hand == set()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("status", "nonsense"),
        ("created_at", "not a date"),
        ("timeout", "soon"),
        ("result_ttl", "x"),
        ("dependency_ids", "{"),
        ("origin", b"\xff\xfe"),
        ("number_of_retries", "many"),
        ("webhooks", "{"),
    ],
)
def test_a_poisoned_hash_delays_nobody(rig: ConsumerRig, field: str, value: str) -> None:
    poisoned = _queue_poisoned(rig, field, value)
    healthy = rig.submit()
    while (job := rig.take()).id != healthy:
        assert job.id == poisoned
        rig.close(job.id, EventKind.FAILED)
    rig.flush()
    rig.close(healthy)
    assert rig.thread.is_alive()
    assert rig.consumer.in_hand == set()
    assert rig.redis.llen(rig.queue.intermediate_queue_key) == 0


def _queue_poisoned(rig: ConsumerRig, field: str, value: str) -> str:
    """Queue a job whose RQ hash cannot be right, before the loop can see the healthy one."""
    with rig.redis.pipeline() as pipe:
        job = Job.create(
            "mgs.generate",
            args=("poisoned",),
            id="poisoned",
            connection=rig.redis,
            serializer=JSONSerializer,
        )
        pipe.hset(job.key, mapping={**_hash_of(job), field: value})
        pipe.rpush(rig.queue.key, job.id)
        pipe.execute()
    return job.id


def _hash_of(job: Job) -> dict:
    job.origin = "mgs-gen-0"
    return {key: value for key, value in job.to_dict().items() if value is not None}


def test_an_unreadable_hash_is_handed_over_by_its_id(rig: ConsumerRig) -> None:
    """Its client waits for an end; who has the log must write one."""
    poisoned = _queue_poisoned(rig, "status", "nonsense")
    assert rig.refused.get(timeout=20) == poisoned
    wait_until(lambda: rig.redis.ttl(Job.key_for(poisoned)) > 0, "its hash expires")


def test_a_job_that_cannot_be_admitted_does_not_end_the_loop(rig: ConsumerRig) -> None:
    rig.raise_at_next_admit(ValueError("a broken record"))
    first, second = rig.submit(), rig.submit()
    assert rig.take().id == second
    assert rig.refused.get(timeout=20) == first
    rig.close(second)
    assert rig.consumer.in_hand == set()


def test_a_job_that_meets_a_failing_redis_is_admitted_when_it_answers(rig: ConsumerRig) -> None:
    rig.raise_at_next_admit(RedisConnectionError("away"))
    first, second = rig.submit(), rig.submit()
    assert {rig.take().id, rig.take().id} == {first, second}
    assert rig.refused.empty()
    for job_id in (first, second):
        rig.close(job_id)
    assert rig.consumer.in_hand == set()


def test_what_was_moved_while_its_reply_got_lost_is_put_back(rig: ConsumerRig) -> None:
    running = rig.submit()
    rig.take()
    lost = rig.submit()
    rig.take()
    rig.flush()
    # As after a lost reply: in the intermediate list, and in nobody's hands.
    rig.consumer.in_hand.discard(lost)
    rig.redis.rpush(rig.queue.intermediate_queue_key, lost, running)
    rig.cut_connections()
    assert rig.take().id == lost
    assert rig.redis.lrange(rig.queue.key, 0, -1) == []
    rig.redis.lrem(rig.queue.intermediate_queue_key, 0, running)


@pytest.mark.parametrize("is_made", [True, False], ids=["made before", "made meanwhile"])
def test_a_loop_that_starts_while_redis_is_away_begins_when_it_is_back(
    tmp_path: Path, is_made: bool
) -> None:
    with private_redis() as server:
        if is_made:
            rig = ConsumerRig(server.url, tmp_path)
        server.kill()
        if not is_made:
            rig = ConsumerRig(server.url, tmp_path)
        rig.books.start()
        rig.thread.start()
        server.start()
        wait_until(lambda: Worker.count(rig.redis) == 1, "the worker is listed")
        job_id = rig.submit()
        assert rig.take_begun().id == job_id
        channel = rig.consumer.pubsub_channel_name
        wait_until(lambda: rig.redis.publish(channel, "{}"), "the command channel is open")
        rig.close(job_id)
        rig.stop()


def test_a_loop_that_ends_while_redis_is_away_ends_well(tmp_path) -> None:
    with private_redis() as server, running_consumer(server.url, tmp_path) as rig:
        wait_until(lambda: Worker.count(rig.redis) == 1, "the worker is listed")
        server.kill()
        rig.stop()
        assert not rig.thread.is_alive()
        server.start()


def test_it_takes_jobs_and_commands_after_its_connections_were_cut(rig: ConsumerRig) -> None:
    rig.redis.ping()
    channel = rig.consumer.pubsub_channel_name
    wait_until(lambda: rig.redis.publish(channel, "{}"), "the command channel is open")
    for _ in range(3):
        rig.cut_connections()
        job_id = rig.submit()
        assert rig.take().id == job_id
        wait_until(lambda: rig.redis.publish(channel, "{}"), "the command channel is back")
        rig.store.send_stop(rig.consumer.name, job_id, "enough")
        assert rig.stopped.get(timeout=20) == (job_id, "enough")


def test_a_redis_that_lost_everything_gets_the_worker_back(rig: ConsumerRig) -> None:
    wait_until(lambda: Worker.count(rig.redis) == 1, "the worker is listed")
    rig.redis.flushall()
    rig.consumer.send_heartbeat()
    (worker,) = Worker.all(rig.redis, serializer=JSONSerializer)
    assert worker.name == rig.consumer.name
    assert worker.queue_names() == ["mgs-gen-0"]
    assert worker.birth_date is not None
    assert Worker.count(queue=rig.queue) == 1
    assert 0 < rig.redis.ttl(rig.consumer.key) <= workers.rq_bridge.rq_records.LEASE_S


def test_a_heartbeat_that_meets_a_half_forgotten_worker_makes_it_whole(rig: ConsumerRig) -> None:
    wait_until(lambda: Worker.count(rig.redis) == 1, "the worker is listed")
    rig.redis.flushall()
    # The bookkeeper's word comes before the heartbeat's: the hash exists, the lists are empty.
    rig.consumer.set_state("idle")
    rig.redis.hset(rig.consumer.key, "last_heartbeat", "2026-01-01T00:00:00.000000Z")
    rig.consumer.send_heartbeat()
    assert Worker.count(rig.redis) == 1
    assert rig.worker_fields()["queues"] == "mgs-gen-0"


def test_a_killed_redis_comes_back_to_a_working_loop(tmp_path) -> None:
    with private_redis(is_kept=True) as server, running_consumer(server.url, tmp_path) as rig:
        before = rig.submit()
        rig.take_begun()
        server.kill()
        server.start()
        after = rig.submit()
        assert rig.take_begun().id == after
        channel = rig.consumer.pubsub_channel_name
        wait_until(lambda: rig.redis.publish(channel, "{}"), "the command channel is back")
        for job_id in (before, after):
            rig.close(job_id)
            assert job_id in rig.queue.finished_job_registry


def test_the_end_of_a_job_waits_in_the_books_while_redis_is_away(tmp_path) -> None:
    with private_redis(is_kept=True) as server, running_consumer(server.url, tmp_path) as rig:
        job_id = rig.submit()
        rig.take_begun()
        server.kill()
        rig.close_unflushed(job_id)
        server.start()
        rig.flush()
        assert job_id in rig.queue.finished_job_registry
        assert rig.thread.is_alive()
