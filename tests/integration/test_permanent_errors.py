"""What Redis refuses for good is one job's: that job ends, the others and the worker go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis.exceptions import RedisError
from rq.job import Job, JobStatus

from jobs.contract.errors import EngineError, JobError
from jobs.contract.events import Event, EventKind, Usage
from jobs.storage import names
from jobs.storage.connection import SyncRedis, connect, connect_async
from jobs.storage.event_log import EventWriter, read_log
from jobs.stream.hub import EventHub
from tests.helpers.consumer_rig import ConsumerRig
from tests.helpers.driver import Driver, assert_whole, text
from tests.helpers.supervised import supervised
from tests.helpers.taking import claimed
from tests.helpers.waiting import wait_until
from workers.generation.attempts import AttemptOpener
from workers.generation.outbox import Outbox
from workers.generation.publisher import Publisher

pytestmark = pytest.mark.usefixtures("short_block")

_FLUSH_S = 20.0
_PATTERNS = {"log": names.log_key, "record": names.job_key}

KeyOf = Callable[[str], str]


class Rig:
    """A worker's loop, publisher and books on a real Redis; a test is the model."""

    def __init__(self, redis_url: str, folder: Path, writer_url: str | None = None) -> None:
        self.url = redis_url
        self.consumer = ConsumerRig(redis_url, folder, is_begun=False)
        self.redis = self.consumer.redis
        self.refused: list[str] = []
        self.publisher = Publisher(
            EventWriter(connect(writer_url or redis_url, retries=0), 60, 60),
            self._on_refused,
            lambda event, is_end: self.consumer.books.close(event, is_end=is_end),
            self.consumer.books.begin,
        )
        self.outboxes: dict[str, Outbox] = {}

    def _on_refused(self, job_id: str) -> None:
        self.refused.append(job_id)
        self.consumer.books.drop(job_id)

    def start(self) -> None:
        self.consumer.books.start()
        self.consumer.thread.start()
        self.publisher.start()

    def stop(self) -> None:
        assert self.publisher.stop(_FLUSH_S)
        self.consumer.stop()

    def run(self, count: int = 1) -> list[str]:
        """Jobs that have started and said a word."""
        started = []
        for _ in range(count):
            self.consumer.submit()
            job_id = self.consumer.take().id
            attempt = AttemptOpener(self.redis, self.consumer.consumer.name).open(job_id)
            self.outboxes[job_id] = Outbox(self.publisher, job_id, attempt.attempt, attempt.seq)
            self.outboxes[job_id].started(Usage(3))
            started.append(job_id)
        self.say(started, "a")
        self.wait_silent()
        return started

    def say(self, job_ids: list[str], letter: str) -> None:
        """A token of each job; they leave in one call."""
        for job_id in job_ids:
            self.outboxes[job_id].chunk(0, ord(letter), letter)
        self.publisher.notify()

    def finish(self, job_ids: list[str]) -> None:
        for job_id in job_ids:
            self.outboxes[job_id].finish(Usage(3, 2))
        self.wait_silent()

    def wait_silent(self) -> None:
        """All is written, and noted in RQ."""
        wait_until(lambda: self.publisher.num_unpublished == 0, "all is written")
        self.consumer.flush()

    def events(self, job_id: str) -> list[Event]:
        return read_log(self.redis, job_id)

    def is_let_go(self, job_id: str) -> bool:
        """Nothing of the job is left in this worker, nor its claim in Redis."""
        consumer = self.consumer.consumer
        held = {*self.consumer.books._open_jobs, *consumer.in_hand, *self.publisher.dirty}
        held |= {execution.job_id for execution in consumer.executions.values()}
        return job_id not in held | {claimed_id for _, claimed_id in claimed(self.redis)}

    def assert_well(self, job_ids: list[str], said: str) -> None:
        """Every word was written, and RQ knows of the end."""
        for job_id in job_ids:
            assert_whole(self.events(job_id))
            assert text(self.events(job_id)) == said
            assert self.consumer.fetch(job_id).get_status() is JobStatus.FINISHED
            assert self.is_let_go(job_id)


@contextmanager
def running(rig: Rig) -> Iterator[Rig]:
    rig.start()
    try:
        yield rig
    finally:
        rig.stop()


@pytest.fixture
def rig(redis_url: str, tmp_path: Path) -> Iterator[Rig]:
    with running(Rig(redis_url, tmp_path)) as found:
        yield found


def _end_for_a_client(url: str, job_id: str) -> str:
    """The code of the error with which a reader of the job's events is sent away."""

    async def read() -> str:
        clients = connect_async(url), connect_async(url, retries=0)
        hub = EventHub(*clients)
        await hub.start()
        try:
            async with asyncio.timeout(_FLUSH_S):
                found = [event async for event in hub.replay(job_id)]
            return found[-1].error.code
        except JobError as error:
            return error.code
        finally:
            await hub.stop()
            for client in clients:
                await client.aclose()

    return asyncio.run(read())


@pytest.mark.parametrize("key_of", _PATTERNS.values(), ids=_PATTERNS)
def test_a_log_or_record_of_another_type_costs_its_job_alone(rig: Rig, key_of: KeyOf) -> None:
    ids = rig.run(3)
    odd, well = ids[1], [ids[0], ids[2]]
    rig.redis.set(key_of(odd), "not ours")
    rig.say(ids, "b")
    rig.wait_silent()
    rig.finish(well)
    rig.assert_well(well, "ab")
    assert rig.refused == [odd]
    assert rig.is_let_go(odd)
    assert _end_for_a_client(rig.url, odd) == "internal_error"
    again = rig.run()
    rig.finish(again)
    rig.assert_well(again, "a")


@pytest.mark.parametrize("key_of", _PATTERNS.values(), ids=_PATTERNS)
def test_an_end_that_cannot_be_written_is_let_go(rig: Rig, key_of: KeyOf) -> None:
    ids = rig.run(3)
    odd, well = ids[1], [ids[0], ids[2]]
    rig.redis.set(key_of(odd), "not ours")
    rig.finish(ids)
    rig.assert_well(well, "a")
    assert rig.is_let_go(odd)


def test_keys_that_this_user_may_not_write_cost_their_job_alone(
    redis_url: str, tmp_path: Path
) -> None:
    with connect(redis_url) as owner:
        _allow(owner, ["*"])
        writer_url = redis_url.replace("unix://", "unix://writer:p@")
        with running(Rig(redis_url, tmp_path, writer_url)) as rig:
            ids = rig.run(3)
            odd, well = ids[1], [ids[0], ids[2]]
            shared = [f"{names.LIVE}*", names.JOB_EXPIRY, names.TOTALS]
            _allow(owner, [*shared, *(f"mgs:*:{job_id}" for job_id in well)])
            rig.say(ids, "b")
            rig.wait_silent()
            rig.finish(well)
            rig.assert_well(well, "ab")
            assert rig.refused == [odd]
            assert rig.is_let_go(odd)
        owner.acl_deluser("writer")


def _allow(owner: SyncRedis, keys: list[str]) -> None:
    owner.acl_setuser(
        "writer",
        enabled=True,
        reset=True,
        passwords=["+p"],
        keys=keys,
        channels=["*"],
        commands=["+@all"],
    )


@pytest.mark.parametrize("kind", [EventKind.FINISHED, EventKind.FAILED])
def test_rqs_entry_of_another_type_costs_its_job_alone(rig: Rig, kind: EventKind) -> None:
    ids = rig.run(3)
    odd = ids[1]
    rig.redis.delete(Job.key_for(odd))
    rig.redis.set(Job.key_for(odd), "not ours")
    if kind is EventKind.FAILED:
        rig.outboxes[odd].fail(EngineError("it broke"))
    rig.finish(ids if kind is EventKind.FINISHED else [ids[0], ids[2]])
    rig.assert_well([ids[0], ids[2]], "a")
    assert rig.events(odd)[-1].kind is kind
    assert rig.is_let_go(odd)


def test_rqs_entry_of_another_type_before_the_start_costs_its_job_alone(rig: Rig) -> None:
    ids = rig.run(2)
    rig.consumer.submit()
    odd = rig.consumer.take().id
    attempt = AttemptOpener(rig.redis, rig.consumer.consumer.name).open(odd)
    rig.redis.delete(Job.key_for(odd))
    rig.redis.set(Job.key_for(odd), "not ours")
    rig.outboxes[odd] = Outbox(rig.publisher, odd, attempt.attempt, attempt.seq)
    rig.outboxes[odd].started(Usage(3))
    rig.wait_silent()
    rig.outboxes[odd].fail(EngineError("it broke"))
    rig.finish(ids)
    rig.assert_well(ids, "a")
    assert rig.is_let_go(odd)


def test_a_claim_that_cannot_be_removed_is_not_waited_for(rig: Rig) -> None:
    ids = rig.run(2)
    rig.redis.delete(names.claims_key("0"))
    rig.redis.set(names.claims_key("0"), "not ours")
    rig.finish(ids)
    assert [rig.events(job_id)[-1].kind for job_id in ids] == [EventKind.FINISHED] * 2
    assert (
        rig.consumer.books._open_jobs,
        rig.consumer.consumer.in_hand,
        rig.consumer.consumer.executions,
    ) == (
        {},
        set(),
        {},
    )
    rig.redis.delete(names.claims_key("0"))


def test_of_three_streams_of_a_worker_one_loses_its_log(redis_url: str, tmp_path: Path) -> None:
    with supervised(redis_url, tmp_path) as supervisor:
        driver = supervisor.driver
        pid = driver.load_ready("fake-20ms", slots=3).pid
        ids = [driver.generate(max_tokens=80) for _ in range(3)]
        for job_id in ids:
            driver.wait_running(job_id, 5)
        odd, well = ids[1], [ids[0], ids[2]]
        driver.redis.set(names.log_key(odd), "not ours")
        assert _end_for_a_client(redis_url, odd) == "internal_error"
        assert [len(driver.text_of(job_id)) for job_id in well] == [80, 80]
        for job_id in well:
            assert_whole(driver.events(job_id))
        further = [driver.generate(max_tokens=8) for _ in range(6)]
        assert [len(driver.text_of(job_id)) for job_id in further] == [8] * 6
        wait_until(lambda: not claimed(driver.redis), "nothing is claimed any more")
        assert driver.status().pid == pid
        _assert_closed(driver, [*well, *further])


def _assert_closed(driver: Driver, job_ids: list[str]) -> None:
    """RQ's records of the jobs come to their end."""

    def is_closed(job_id: str) -> bool:
        try:
            return driver.store.queue("mgs-gen-0").fetch_job(job_id).is_finished
        except RedisError:
            return False

    for job_id in job_ids:
        wait_until(lambda: is_closed(job_id), f"RQ knows that {job_id} has ended")  # noqa: B023
