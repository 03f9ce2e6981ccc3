"""What a worker's loop takes: what is meant for it, once, and only as long as it is its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue as Hand
from typing import Any

import pytest
from redis.connection import AbstractConnection as Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from rq.job import Job

from jobs.contract.records import JobStatus
from jobs.contract.requests import LoadRequest, Prompt, Task, TokenCountRequest, UnloadRequest
from jobs.storage import names
from jobs.storage.connection import SyncRedis, connect
from jobs.storage.event_log import EventWriter, read_log
from jobs.storage.lua import take_scripts
from tests.helpers.consumer_rig import GET_S, ConsumerRig, running_consumer
from tests.helpers.taking import claimed, open_attempt, take
from tests.helpers.waiting import wait_until
from workers.generation.attempts import Attempt
from workers.generation.outbox import Outbox
from workers.generation.publisher import Publisher
from workers.rq_bridge.queued_job import QueuedJob
from workers.runtime.admission import Admission

pytestmark = pytest.mark.usefixtures("short_block")

CONTROL = "mgs-ctl-0"
NEXT = "0.gen.next"
COUNT = TokenCountRequest(Prompt(text="x"))


class ReceivingRig(ConsumerRig):
    """A loop whose jobs are opened, by what opens them in a worker. ``before_open`` comes first,
    ``start_job`` while the job is being started."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        super().__init__(redis_url, folder, is_begun=False)
        self.opened: Hand[Attempt] = Hand()
        self.before_open: Callable[[QueuedJob], object] = lambda job: None
        self.start_job: Callable[[Attempt], object] = lambda attempt: None
        self.publisher = Publisher(
            EventWriter(connect(redis_url, retries=0), 60, 60),
            self.books.drop,
            lambda event, is_end: self.books.close(event, is_end=is_end),
            self.books.begin,
        )
        self.admission = Admission(
            connect(redis_url, retries=0),
            self.publisher,
            self.books,
            lambda job_id, reason: self.stopped.put((job_id, reason)),
        )

    def _admit(self, job: QueuedJob) -> None:
        self.before_open(job)
        self.admission.admit(self.consumer, job, Task.GENERATE, self._start_job)

    def _start_job(self, attempt: Attempt, outbox: Outbox) -> None:
        self.start_job(attempt)
        self.opened.put(attempt)

    def _refuse(self, job_id: str) -> bool:
        return self.admission.refuse(self.consumer, job_id)

    def open_next(self) -> str:
        """Id of the next job whose attempt was opened."""
        return self.opened.get(timeout=GET_S).job_id


@pytest.fixture
def receiving(redis_url: str, tmp_path: Path) -> Iterator[ReceivingRig]:
    """Neither its loop nor its publisher runs before the test starts it."""
    rig = ReceivingRig(redis_url, tmp_path)
    yield rig
    if rig.publisher.is_alive():
        assert rig.publisher.stop(GET_S)
    rig.stop()


def waiting(rig: ConsumerRig) -> list[str]:
    return [item.decode() for item in rig.redis.lrange(rig.queue.key, 0, -1)]


def between(rig: ConsumerRig) -> list[str]:
    found = rig.redis.lrange(rig.queue.intermediate_queue_key, 0, -1)
    return [item.decode() for item in found]


# Cancels.


@pytest.mark.parametrize("is_its_own", [True, False])
def test_a_cancel_while_a_job_is_being_started_ends_it_and_no_other(
    receiving: ReceivingRig, is_its_own: bool
) -> None:
    """It comes after the attempt was opened, and before anything runs that it could end."""
    receiving.start_job = lambda attempt: receiving.admission.note_cancel(
        attempt.job_id if is_its_own else "another", "enough"
    )
    first, second = receiving.submit(), receiving.submit()
    receiving.start()
    assert [receiving.open_next(), receiving.open_next()] == [first, second]
    receiving.stop()
    stopped = [receiving.stopped.get_nowait() for _ in range(receiving.stopped.qsize())]
    assert stopped == ([(first, "enough"), (second, "enough")] if is_its_own else [])


def test_a_cancel_that_comes_when_the_job_has_started_is_not_kept(receiving: ReceivingRig) -> None:
    first, second = receiving.submit(), receiving.submit()
    receiving.before_open = lambda job: receiving.admission.note_cancel(first, "late")
    receiving.start()
    assert [receiving.open_next(), receiving.open_next()] == [first, second]
    receiving.stop()
    assert receiving.stopped.empty()


# A reply that is lost.


@pytest.mark.parametrize("is_carried_out", [True, False], ids=["lost reply", "lost call"])
def test_a_job_whose_take_was_cut_is_admitted_once(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_carried_out: bool
) -> None:
    """The claim says that it was given to this worker; nothing else does."""
    rig = ConsumerRig(redis_url, tmp_path)
    first, second = rig.submit(), rig.submit()
    sha = rig.redis.script_load(take_scripts.TAKE).encode()
    send, losses = Connection.send_packed_command, iter([True])

    def lose_the_first(connection: Connection, command: Any, **kwargs: Any) -> None:
        is_lost = sha in b"".join(command) and next(losses, False)
        if not is_lost or is_carried_out:
            send(connection, command, **kwargs)
        if is_lost:
            if is_carried_out:
                assert connection.read_response()[0] == first.encode()
            connection.disconnect()
            raise RedisConnectionError("the connection is lost")

    monkeypatch.setattr(Connection, "send_packed_command", lose_the_first)
    rig.start()
    assert sorted([rig.take().id, rig.take().id]) == sorted([first, second])
    rig.flush()
    assert next(losses, None) is None, "the call was cut"
    assert claimed(rig.redis) == {(rig.consumer.name, first), (rig.consumer.name, second)}
    for job_id in (first, second):
        rig.close(job_id)
    assert (waiting(rig), between(rig), claimed(rig.redis)) == ([], [], set())
    assert rig.admitted.empty()
    rig.stop()


# What is meant for it.


def submit_mixed(rig: ConsumerRig) -> dict[str, str]:
    """Foreign loads and unloads around what is meant for the worker, and what is for anybody."""
    kinds = {
        "old-load": LoadRequest("fake", "fake"),
        "old-unload": UnloadRequest(),
        "first-count": COUNT,
        "load": LoadRequest("fake", "fake"),
        "older-load": LoadRequest("fake", "fake"),
        "second-count": COUNT,
        "unload": UnloadRequest(),
    }
    return {name: rig.submit(request, job_id=f"job-{name}") for name, request in kinds.items()}


MEANT = ["job-load", "job-unload"]
OLD = ["job-old-load", "job-old-unload", "job-older-load"]


def test_loads_and_unloads_of_other_desired_models_are_left_and_those_behind_them_taken(
    redis_url: str, tmp_path: Path
) -> None:
    with running_consumer(redis_url, tmp_path, queue=CONTROL, meant=MEANT) as rig:
        submit_mixed(rig)
        taken = [rig.take().id for _ in range(4)]
        assert taken == ["job-first-count", "job-load", "job-second-count", "job-unload"]
        seen = rig.num_waits
        wait_until(lambda: rig.num_waits >= seen + 3, "the loop has looked again")
        assert waiting(rig) == OLD
        assert rig.admitted.empty()
        assert {job_id for _, job_id in claimed(rig.redis)} == set(taken)


def test_a_worker_without_a_model_takes_its_load_before_all_else(
    redis_url: str, tmp_path: Path
) -> None:
    is_loaded: list[bool] = []
    with running_consumer(
        redis_url, tmp_path, queue=CONTROL, meant=MEANT[:1], is_only_meant=lambda: not is_loaded
    ) as rig:
        submit_mixed(rig)
        assert rig.take().id == "job-load"
        seen = rig.num_waits
        wait_until(lambda: rig.num_waits >= seen + 3, "the loop has looked again")
        assert rig.admitted.empty()
        is_loaded.append(True)
        assert [rig.take().id for _ in range(2)] == ["job-first-count", "job-second-count"]
        assert waiting(rig) == [*OLD, "job-unload"]


def test_without_a_load_of_its_own_nothing_is_taken_for_one(redis_url: str, tmp_path: Path) -> None:
    with running_consumer(redis_url, tmp_path, queue=CONTROL) as rig:
        rig.submit(LoadRequest("fake", "fake"), job_id="job-load")
        count = rig.submit(COUNT)
        assert rig.take().id == count
        assert waiting(rig) == ["job-load"]


# Whose model it is.


def test_once_another_owner_has_the_model_no_job_is_taken(redis_url: str, tmp_path: Path) -> None:
    with connect(redis_url) as redis:
        redis.set(names.owner_key("0"), "22|bb")
    with running_consumer(redis_url, tmp_path, owner="11|aa") as rig:
        job_id = rig.submit()
        seen = rig.num_waits
        wait_until(lambda: rig.num_waits >= seen + 3, "the loop has looked")
        assert (waiting(rig), claimed(rig.redis)) == ([job_id], set())
        rig.redis.set(names.owner_key("0"), "11|aa")
        assert rig.take().id == job_id


def test_while_nobody_holds_the_model_its_worker_goes_on(redis_url: str, tmp_path: Path) -> None:
    """A lock expires while Redis is away; no job has to wait for its renewal."""
    with running_consumer(redis_url, tmp_path, owner="11|aa") as rig:
        job_id = rig.submit()
        assert rig.take().id == job_id


# A claim that is taken away.


def traces(redis: SyncRedis, job_id: str) -> dict[str, Any]:
    """All that Redis and RQ know of a job, and whether it will still be there in an hour."""
    keys = [Job.key_for(job_id), names.job_key(job_id), names.log_key(job_id)]
    return {key: (redis.dump(key), redis.ttl(key) >= 3600) for key in keys}


@pytest.mark.parametrize("claim_of_the_next", [take, open_attempt])
def test_a_job_that_was_taken_away_before_it_was_opened_is_left_alone(
    receiving: ReceivingRig, claim_of_the_next: Callable[[SyncRedis, str, str], object]
) -> None:
    """A supervisor takes the worker for dead, gives its job back, and the next worker has it."""
    redis, store, me = receiving.redis, receiving.store, receiving.consumer.name
    before: dict[str, Any] = {}

    def steal(job: QueuedJob) -> None:
        if not before:
            assert store.return_to_queue(store.record(job.id), me, counted_as=None)
            claim_of_the_next(redis, NEXT, job.id)
            before.update(traces(redis, job.id))

    receiving.before_open = steal
    stolen, other = receiving.submit(), receiving.submit()
    receiving.start()
    assert receiving.open_next() == other
    assert traces(redis, stolen) == before
    assert between(receiving) == [stolen, other]
    assert claimed(redis) == {(NEXT, stolen), (me, other)}
    assert receiving.consumer.in_hand == {other}


# Entries that are of no use.


def test_a_refused_job_stays_claimed_until_its_end_is_written(receiving: ReceivingRig) -> None:
    """If the worker dies before that, its supervisor finds the job by the claim."""
    refused, other = receiving.submit(), receiving.submit()
    receiving.redis.hset(Job.key_for(refused), "status", "nonsense")
    receiving.start()
    assert receiving.open_next() == other
    assert receiving.store.record(refused).status is JobStatus.RUNNING
    assert read_log(receiving.redis, refused) == []
    assert claimed(receiving.redis) == {(receiving.consumer.name, id_) for id_ in (refused, other)}
    assert receiving.consumer.in_hand == {refused, other}
    receiving.publisher.start()
    wait_until(lambda: receiving.consumer.in_hand == {other}, "it is let go")
    assert read_log(receiving.redis, refused)[-1].error.code == "bad_contract"
    assert claimed(receiving.redis) == {(receiving.consumer.name, other)}
    assert receiving.store.record(refused).attempt == 1


@pytest.mark.parametrize(
    "key_of",
    [names.job_key, names.log_key, names.request_key, Job.key_for],
    ids=["record", "log", "request", "RQ's"],
)
def test_a_job_with_a_key_of_another_type_keeps_no_other_from_being_taken(
    receiving: ReceivingRig, key_of: Callable[[str], str]
) -> None:
    odd, others = receiving.submit(), [receiving.submit() for _ in range(2)]
    receiving.redis.delete(key_of(odd))
    receiving.redis.rpush(key_of(odd), "not ours")
    receiving.start()
    receiving.publisher.start()
    opened = [receiving.open_next() for _ in range(2)]
    if odd in opened:  # what is wrong with it is seen when its events are written
        opened.append(receiving.open_next())
    assert [job_id for job_id in opened if job_id != odd] == others
    me = receiving.consumer.name
    wait_until(lambda: claimed(receiving.redis) <= {(me, id_) for id_ in opened}, "it is let go")
    assert receiving.thread.is_alive()
