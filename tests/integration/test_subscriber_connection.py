"""What Redis publishes is heard, in order; a lost connection says so."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

import jobs.stream.subscriber_connection
from jobs.storage.connection import AsyncRedis, connect_async
from jobs.stream.subscriber_connection import SubscriberConnection
from tests.helpers.private_redis import private_redis

WAIT_S = 10.0


class Listener:
    """SubscriberConnection, and what they have said."""

    def __init__(self, client: AsyncRedis) -> None:
        self.client = client
        self.heard: list[list[Any]] = []

    async def open(self) -> SubscriberConnection:
        return await SubscriberConnection.open(self.client.connection_pool, self.heard.append)

    async def wait_for(self, count: int) -> list[list[Any]]:
        async with asyncio.timeout(WAIT_S):
            while len(self.heard) < count:
                await asyncio.sleep(0.001)
        return self.heard


@pytest.fixture
async def listener(redis_url: str) -> AsyncIterator[Listener]:
    client = connect_async(redis_url, retries=0)
    yield Listener(client)
    await client.aclose()


async def test_messages_come_in_order_and_whole(listener: Listener) -> None:
    connection = await listener.open()
    connection.subscribe([b"one", b"two"])
    assert await listener.wait_for(2) == [[b"subscribe", b"one", 1], [b"subscribe", b"two", 2]]
    sent = [[b"message", b"two", b"\x00" + bytes(n) + b"\r\n"] for n in (0, 1, 70_000, 3)] * 20
    for _, channel, data in sent:
        await listener.client.publish(channel, data)
    await listener.client.publish("three", "nobody asked for it")
    await listener.client.publish("one", "last")
    heard = await listener.wait_for(2 + len(sent) + 1)
    assert heard[2:] == [*sent, [b"message", b"one", b"last"]]
    connection.unsubscribe(b"one")
    await listener.wait_for(len(heard) + 1)
    assert await listener.client.publish("one", "x") == 0
    await connection.close()


async def test_a_cut_is_told_and_nothing_is_sent_any_more(listener: Listener) -> None:
    connection = await listener.open()
    connection.subscribe([b"one"])
    await listener.wait_for(1)
    await listener.client.client_kill_filter(_type="pubsub")
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(RedisConnectionError, match="lost"):
            await connection.wait_lost()
    connection.subscribe([b"two"])
    await connection.close()
    assert await listener.client.pubsub_channels() == []


async def test_a_refusal_of_redis_ends_the_connection_with_its_words(listener: Listener) -> None:
    connection = await listener.open()
    connection._send(b"SUBSCRIBE")  # no channel: an error in place of a message
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(RedisError, match="wrong number of arguments"):
            await connection.wait_lost()
    await connection.close()


async def test_a_redis_that_says_nothing_is_asked_and_then_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs.stream.subscriber_connection, "_TICK_S", 0.02)
    with private_redis() as server:
        client = connect_async(server.url, retries=0)
        listener = Listener(client)
        connection = await listener.open()
        connection.subscribe([b"one"])
        await listener.wait_for(1)
        pid = (await client.info("server"))["process_id"]
        os.kill(pid, signal.SIGSTOP)
        async with asyncio.timeout(WAIT_S):
            with pytest.raises(RedisTimeoutError, match="silent"):
                await connection.wait_lost()
        os.kill(pid, signal.SIGCONT)
        await connection.close()
        await client.aclose()


async def test_a_redis_that_says_nothing_to_who_connects_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs.stream.subscriber_connection, "_OPEN_S", 0.1)
    with private_redis() as server:
        client = connect_async(server.url, retries=0)
        pid = (await client.info("server"))["process_id"]
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(RedisTimeoutError):
            await SubscriberConnection.open(client.connection_pool, lambda message: None)
        os.kill(pid, signal.SIGCONT)
        await client.aclose()


@pytest.mark.parametrize("channels", [[], [b"one"]])
async def test_a_redis_that_has_nothing_to_say_stays_and_its_pongs_are_no_messages(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, channels: list[bytes]
) -> None:
    monkeypatch.setattr(jobs.stream.subscriber_connection, "_TICK_S", 0.02)
    monkeypatch.setattr(
        jobs.stream.subscriber_connection, "_LOST_AFTER", 1000
    )  # else a busy machine would be lost
    connection = await listener.open()
    if channels:
        connection.subscribe(channels)
    lost = asyncio.create_task(connection.wait_lost())
    before = await _num_pings(listener.client)
    async with asyncio.timeout(WAIT_S):
        while await _num_pings(listener.client) < before + 3:
            assert not lost.done()
            await asyncio.sleep(0.02)
    assert listener.heard == [[b"subscribe", name, 1] for name in channels]
    lost.cancel()
    await connection.close()


async def _num_pings(client: AsyncRedis) -> int:
    found = (await client.info("commandstats")).get("cmdstat_ping", {"calls": 0})
    return int(found["calls"])


async def test_a_redis_that_is_not_there_is_an_error() -> None:
    with private_redis() as server:
        client = connect_async(server.url, retries=0)
        server.kill()
        with pytest.raises(RedisConnectionError):
            await SubscriberConnection.open(client.connection_pool, lambda message: None)
        await client.aclose()
