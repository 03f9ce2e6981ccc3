"""The hub: every event once and in order, whatever becomes of the subscription."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import jobs.stream.hub
import jobs.stream.subscriber_connection
from jobs.contract.errors import JobError, JobNotFoundError, NotReadyError, StorageLostError
from jobs.contract.events import BEFORE_ALL, Event, EventId, EventKind
from jobs.storage import names
from jobs.storage.connection import SyncRedis, connect, connect_async
from jobs.storage.store import JobStore
from jobs.stream.hub import EventHub
from tests.helpers.private_redis import private_redis
from tests.helpers.samples import event, settings_for, submission
from tests.helpers.taking import WORKER, open_attempt
from tests.helpers.tcp_proxy import tcp_proxy

WAIT_S = 20.0


class Rig:
    """A hub, and a worker that writes what the test says."""

    def __init__(self, url: str, folder: Path) -> None:
        self.redis: SyncRedis = connect(url, retries=8)
        self.store = JobStore(self.redis, settings_for(url, folder))
        self._async = [connect_async(url), connect_async(url, retries=0)]
        self.hub = EventHub(*self._async)
        self.sent: dict[str, list[Event]] = {}

    async def close(self) -> None:
        await self.hub.stop()
        for client in self._async:
            await client.aclose()
        self.redis.close()

    def new_job(self) -> str:
        """A job in a worker's hands."""
        new = submission()
        self.store.submit(new)
        open_attempt(self.redis, WORKER, new.job_id)
        self.sent[new.job_id] = []
        return new.job_id

    def write(self, job: str, count: int = 1) -> None:
        start = len(self.sent[job]) + 1
        events = [event(seq=seq, job=job, text=f"{seq} ") for seq in range(start, start + count)]
        assert all(self.store.writer.append(events))
        self.sent[job] += events

    def finish(self, job: str) -> None:
        end = event(EventKind.FINISHED, len(self.sent[job]) + 1, job=job)
        assert self.store.writer.settle(end)
        self.sent[job].append(end)

    def publish_quietly(self, job: str) -> None:
        """An event without its wake-up."""
        said = event(seq=len(self.sent[job]) + 1, job=job)
        self.redis.xadd(names.log_key(job), {"e": _encode(said)}, id=str(said.id))
        self.sent[job].append(said)

    async def collect(self, job: str, after: EventId = BEFORE_ALL) -> list[Event]:
        async with asyncio.timeout(WAIT_S):
            return [found async for found in self.hub.replay(job, after)]

    async def start_reading(self, job: str) -> asyncio.Task[list[Event]]:
        """A reader that has subscribed before this returns."""
        ready = asyncio.Event()

        async def read() -> list[Event]:
            async with self.hub.subscribe(job) as subscription:
                ready.set()
                return [found async for found in self.hub.read(subscription)]

        task = asyncio.create_task(read())
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({task, waiting}, timeout=WAIT_S, return_when="FIRST_COMPLETED")
        waiting.cancel()
        if task.done():
            task.result()  # why it could not subscribe
        assert ready.is_set()
        return task

    async def result(self, task: asyncio.Task[list[Event]]) -> list[Event]:
        async with asyncio.timeout(WAIT_S):
            return await task


def _encode(said: Event) -> bytes:
    from jobs.contract.events import encode_event

    return encode_event(said)


@pytest.fixture
async def rig(redis_url: str, tmp_path: Path) -> AsyncIterator[Rig]:
    found = Rig(redis_url, tmp_path)
    await found.hub.start()
    yield found
    await found.close()


async def test_who_subscribes_before_submitting_misses_nothing(rig: Rig) -> None:
    for _ in range(20):
        job = rig.new_job()
        task = await rig.start_reading(job)
        rig.write(job, 3)
        rig.finish(job)
        assert await rig.result(task) == rig.sent[job]


async def test_many_readers_of_many_jobs_each_see_their_own(rig: Rig) -> None:
    job_ids = [rig.new_job() for _ in range(20)]
    tasks = [(job, await rig.start_reading(job)) for job in job_ids for _ in range(2)]
    for _ in range(10):
        for job in job_ids:
            rig.write(job, 2)
        await asyncio.sleep(0)
    for job in job_ids:
        rig.finish(job)
    for job, task in tasks:
        assert await rig.result(task) == rig.sent[job]


async def test_a_cut_subscription_heals_from_the_log(rig: Rig) -> None:
    job = rig.new_job()
    task = await rig.start_reading(job)
    for _ in range(5):
        rig.write(job, 3)
        await asyncio.to_thread(rig.redis.client_kill_filter, _type="pubsub")
        rig.write(job, 3)
    rig.finish(job)
    assert await rig.result(task) == rig.sent[job]


async def test_new_readers_are_served_after_a_cut(rig: Rig) -> None:
    for _ in range(5):
        await asyncio.to_thread(rig.redis.client_kill_filter, _type="pubsub")
        job = rig.new_job()
        task = await rig.start_reading(job)
        rig.write(job, 2)
        rig.finish(job)
        assert await rig.result(task) == rig.sent[job]


async def test_what_had_no_wake_up_is_read_after_a_silence(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.stream.hub, "_SILENT_S", 0.05)
    job = rig.new_job()
    task = await rig.start_reading(job)
    rig.publish_quietly(job)
    rig.publish_quietly(job)
    rig.finish(job)
    assert await rig.result(task) == rig.sent[job]


async def test_a_slow_reader_falls_back_to_the_log_and_misses_nothing(rig: Rig) -> None:
    job = rig.new_job()
    async with asyncio.timeout(WAIT_S), rig.hub.subscribe(job) as subscription:
        for _ in range(10):
            rig.write(job, 100)
            await asyncio.sleep(0)  # the hub hears them; the reader does not read
        rig.finish(job)
        found = [heard async for heard in rig.hub.read(subscription)]
    assert found == rig.sent[job]


@pytest.mark.parametrize("place", [0, 1, 5, 9])
async def test_a_replay_goes_on_after_any_event_and_then_live(rig: Rig, place: int) -> None:
    job = rig.new_job()
    rig.write(job, 10)
    after = EventId(1, place) if place else BEFORE_ALL
    task = asyncio.create_task(rig.collect(job, after))
    await asyncio.sleep(0)
    rig.write(job, 5)
    rig.finish(job)
    assert await task == rig.sent[job][place:]


async def test_a_replay_of_a_long_job_is_whole(rig: Rig) -> None:
    job = rig.new_job()
    for _ in range(10):
        rig.write(job, 256)
    rig.finish(job)
    assert await rig.collect(job) == rig.sent[job]


async def test_a_replay_after_the_end_is_empty_and_ends(rig: Rig) -> None:
    """A browser's EventSource connects again with the last id it has seen: the end's."""
    job = rig.new_job()
    rig.write(job, 2)
    rig.finish(job)
    assert await rig.collect(job, rig.sent[job][-1].id) == []
    assert await rig.collect(job, EventId(7, 7)) == []


async def test_a_record_that_is_gone_is_an_error_and_not_a_wait(rig: Rig) -> None:
    with pytest.raises(JobNotFoundError):
        await rig.collect("cmpl-unknown")
    job = rig.new_job()
    task = await rig.start_reading(job)
    rig.write(job, 2)
    rig.redis.flushall()
    with pytest.raises(StorageLostError):
        await rig.result(task)


async def test_a_foreign_message_on_the_channel_hurts_nobody(rig: Rig) -> None:
    job = rig.new_job()
    task = await rig.start_reading(job)
    for line in (b"", b"not json", b"\xff", b'{"job":"j"}', b"[" * 10_000):
        rig.redis.publish(names.event_channel(job), line)
    rig.write(job, 2)
    rig.finish(job)
    assert await rig.result(task) == rig.sent[job]


async def test_a_reader_that_leaves_takes_its_channel_along(rig: Rig) -> None:
    job = rig.new_job()
    tasks = [await rig.start_reading(job) for _ in range(2)]
    channel = names.event_channel(job)
    assert rig.redis.pubsub_numsub(channel)[0][1] == 1, "one subscription serves both"
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    async with asyncio.timeout(WAIT_S):
        while rig.redis.pubsub_numsub(channel)[0][1]:
            await asyncio.sleep(0.005)


async def test_a_reader_can_come_back_to_a_channel_at_once(rig: Rig) -> None:
    job = rig.new_job()
    for _ in range(30):
        task = await rig.start_reading(job)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    task = await rig.start_reading(job)
    rig.write(job, 2)
    rig.finish(job)
    assert await rig.result(task) == rig.sent[job]


async def test_a_redis_that_comes_late_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with private_redis() as server:
        server.kill()
        rig = Rig(server.url, tmp_path)
        await rig.hub.start()
        monkeypatch.setattr(jobs.stream.hub, "_CONNECT_S", 0.05)
        with pytest.raises(NotReadyError):
            await rig.collect("cmpl-1")
        monkeypatch.setattr(jobs.stream.hub, "_CONNECT_S", WAIT_S)
        await asyncio.to_thread(server.start)
        job = rig.new_job()
        task = await rig.start_reading(job)
        rig.write(job, 1)
        rig.finish(job)
        assert await rig.result(task) == rig.sent[job]
        await rig.close()


async def test_a_redis_that_restarts_in_mid_stream_costs_no_event(tmp_path: Path) -> None:
    with private_redis(is_kept=True) as server:
        rig = Rig(server.url, tmp_path)
        await rig.hub.start()
        job = rig.new_job()
        task = await rig.start_reading(job)
        rig.write(job, 3)
        server.kill()
        await asyncio.to_thread(server.start)
        rig.write(job, 3)
        rig.finish(job)
        assert await rig.result(task) == rig.sent[job]
        await rig.close()


async def test_a_confirmation_that_comes_behind_many_messages_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with private_redis() as server, tcp_proxy(server.socket) as proxy:
        rig, writer = Rig(proxy.url, tmp_path), Rig(server.url, tmp_path)
        await rig.hub.start()
        talk, quiet = writer.new_job(), writer.new_job()
        talking = await rig.start_reading(talk)
        monkeypatch.setattr(jobs.stream.hub, "_CONNECT_S", 2.5)
        proxy.delay(1.5)  # each way: the confirmation takes longer than that
        starting = asyncio.create_task(_read_later(rig, quiet))
        while not starting.done():
            await asyncio.to_thread(writer.write, talk)
            await asyncio.sleep(0.05)
        for job in (talk, quiet):
            writer.finish(job)
        assert await rig.result(await starting) == writer.sent[quiet]
        assert await rig.result(talking) == writer.sent[talk]
        await rig.close()
        await writer.close()


async def test_a_stream_is_whole_after_redis_was_frozen(tmp_path: Path) -> None:
    with private_redis() as server:
        rig = Rig(server.url, tmp_path)
        await rig.hub.start()
        job = rig.new_job()
        task = await rig.start_reading(job)
        rig.write(job, 3)
        pid = rig.redis.info("server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(4)
        os.kill(pid, signal.SIGCONT)
        rig.write(job, 3)
        rig.finish(job)
        assert await rig.result(task) == rig.sent[job]
        await rig.close()


async def test_a_stream_is_whole_after_a_frozen_redis_was_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every connection was made anew, some of them to a Redis that said nothing yet."""
    monkeypatch.setattr(jobs.stream.hub, "_SILENT_S", 0.05)
    monkeypatch.setattr(jobs.stream.hub, "_READ_S", 0.1)
    monkeypatch.setattr(jobs.stream.subscriber_connection, "_TICK_S", 0.02)
    monkeypatch.setattr(jobs.stream.subscriber_connection, "_OPEN_S", 0.1)
    with private_redis() as server:
        rig = Rig(server.url, tmp_path)
        await rig.hub.start()
        job = rig.new_job()
        task = await rig.start_reading(job)
        rig.write(job, 3)
        pid = rig.redis.info("server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
        async with asyncio.timeout(WAIT_S):
            while rig.hub.num_wakeups is not None:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        os.kill(pid, signal.SIGCONT)
        rig.write(job, 3)
        rig.finish(job)
        assert await rig.result(task) == rig.sent[job]
        await rig.close()


@pytest.mark.parametrize("key", [names.log_key, names.job_key])
async def test_a_log_or_record_that_can_never_be_read_is_an_error_and_not_a_wait(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, key: Callable[[str], str]
) -> None:
    monkeypatch.setattr(jobs.stream.hub, "_SILENT_S", 0.05)
    job = rig.new_job()
    task = await rig.start_reading(job)
    rig.redis.set(key(job), "something else")
    with pytest.raises(JobError, match="WRONGTYPE"):
        await rig.result(task)


async def _read_later(rig: Rig, job: str) -> asyncio.Task[list[Event]]:
    """Subscribe once the delayed messages of other jobs arrive."""
    heard = rig.hub._last_message_at
    async with asyncio.timeout(WAIT_S):
        while rig.hub._last_message_at == heard:
            await asyncio.sleep(0.01)
    return await rig.start_reading(job)
