"""Clients of a Redis that is late, absent, locked, mute, or gone without a word."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

import jobs.storage.connection
from jobs.contract.errors import NotReadyError
from jobs.storage.connection import (
    connect,
    connect_async,
    wait_for_redis,
    within,
)
from jobs.storage.script_connection import ScriptConnection
from jobs.stream.subscriber_connection import SubscriberConnection
from tests.helpers.private_redis import PrivateRedis, private_redis
from tests.helpers.tcp_proxy import tcp_proxy
from tests.helpers.tls_proxy import tls_proxy

WAIT_S = 20.0
_LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.mark.parametrize("given", ["", ":wrong@"])
def test_a_password_that_is_not_right_is_said_at_once(given: str) -> None:
    with private_redis() as server:
        owner = connect(server.url)
        owner.config_set("requirepass", "right")
        client = connect(server.url.replace("unix://", f"unix://{given}"))
        start = time.monotonic()
        with pytest.raises(NotReadyError, match="Redis refuses"):
            wait_for_redis(client, timeout_s=60)
        assert time.monotonic() - start < 30
        client.close()
        owner.close()


def test_a_server_that_is_not_there_is_waited_for_and_then_named(tmp_path: Path) -> None:
    client = connect(f"unix://{tmp_path / 'none'}?db=0", retries=0)
    with pytest.raises(NotReadyError, match="does not answer"):
        wait_for_redis(client, timeout_s=0.1)
    client.close()


def test_a_thousand_commands_at_once_are_all_answered(redis_url: str) -> None:
    async def ask_all() -> list[bytes | None]:
        client = connect_async(redis_url)
        await client.set("k", "v")
        try:
            return await asyncio.gather(*(client.get("k") for _ in range(1000)))
        finally:
            await client.aclose()

    assert asyncio.run(ask_all()) == [b"v"] * 1000


# What the system is told about peers that are gone without a word.


@pytest.fixture(scope="module", params=["redis", "rediss"])
def tcp_url(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[str]:
    with private_redis() as server:
        if request.param == "redis":
            with tcp_proxy(server.socket) as proxy:
                yield proxy.url
        else:
            with tls_proxy(server.socket, tmp_path_factory.mktemp("tls")) as url:
                yield url


def _assert_guarded(peer: Any) -> None:
    """The socket notices a dead peer, idle or not."""
    assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    options = jobs.storage.connection._OPTIONS
    found = {option: peer.getsockopt(socket.IPPROTO_TCP, option) for option in options}
    assert found == options


def test_a_threads_socket_is_guarded(tcp_url: str) -> None:
    client = connect(tcp_url)
    connection = client.connection_pool.get_connection()
    _assert_guarded(connection._sock)
    client.connection_pool.release(connection)
    assert client.ping()
    client.close()


def test_a_script_lines_socket_is_guarded(tcp_url: str) -> None:
    line = ScriptConnection(connect(tcp_url, retries=0), "return 1")
    assert [line([], []) for _ in range(3)] == [1, 1, 1]
    _assert_guarded(line._connection._sock)
    line.disconnect()


@pytest.mark.parametrize("loop", _LOOPS)
def test_an_asyncio_clients_sockets_are_guarded(tcp_url: str, loop: str) -> None:
    async def look() -> None:
        client = connect_async(tcp_url)
        connection = await client.connection_pool.get_connection()
        _assert_guarded(connection._writer.get_extra_info("socket"))
        await client.connection_pool.release(connection)
        heard: asyncio.Queue[list[Any]] = asyncio.Queue()
        connection = await SubscriberConnection.open(client.connection_pool, heard.put_nowait)
        _assert_guarded(connection._transport.get_extra_info("socket"))
        connection.subscribe([b"channel"])
        async with asyncio.timeout(WAIT_S):
            await heard.get()
            await client.publish("channel", "x" * 100_000)
            assert (await heard.get())[2] == b"x" * 100_000
        await connection.close()
        await client.aclose()

    with asyncio.Runner(loop_factory=_LOOPS[loop]) as runner:
        runner.run(look())


def test_an_option_that_the_system_does_not_know_is_left_out(
    tcp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = jobs.storage.connection._OPTIONS
    monkeypatch.setattr(jobs.storage.connection, "_OPTIONS", {**options, 30_000: 5})
    jobs.storage.connection._peer_options.cache_clear()
    assert jobs.storage.connection._peer_options() == options
    client = connect(tcp_url)
    assert client.ping()
    client.close()
    jobs.storage.connection._peer_options.cache_clear()


# A Redis that takes connections and says nothing.


class MuteServer:
    """Counts the connections that it takes."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self.taken: list[socket.socket] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self.taken.append(self._listener.accept()[0])
            except OSError:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for one in (self._listener, *self.taken):
            one.close()


@pytest.fixture
def mute(monkeypatch: pytest.MonkeyPatch) -> Iterator[MuteServer]:
    monkeypatch.setattr(jobs.storage.connection, "_TIMEOUT_S", 0.3)
    monkeypatch.setattr(jobs.storage.connection, "_RETRY_S", 0.2)
    server = MuteServer()
    yield server
    server.close()


def test_a_redis_that_says_nothing_is_tried_once(mute: MuteServer) -> None:
    """Each try would cost a time-out."""
    client = connect(mute.url, retries=3)
    with pytest.raises(RedisTimeoutError):
        client.ping()
    assert len(mute.taken) == 1
    client.close()


def test_who_must_say_soon_that_redis_is_away_waits_as_long_as_it_says(
    mute: MuteServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.storage.connection, "_TIMEOUT_S", 300.0)
    client = connect(mute.url, retries=0, timeout_s=0.1)
    with pytest.raises(RedisTimeoutError):
        client.ping()
    client.close()


def test_a_redis_that_is_gone_for_a_moment_is_tried_again() -> None:
    with private_redis() as server:
        client = connect(server.url)
        client.set("k", "v")
        for _ in range(3):
            connect(server.url).client_kill_filter(_type="normal", skipme=True)
            assert client.get("k") == b"v"
        client.close()


class MayPause:
    """A server that says nothing between ``pause`` and ``resume``; holds keys a and b."""

    def __init__(self, server: PrivateRedis) -> None:
        self.url = server.url
        with connect(server.url) as client:
            client.mset({"a": "1", "b": "2"})
            self._pid = client.info("server")["process_id"]

    def pause(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self._pid, signal.SIGCONT)


@pytest.fixture
def server() -> Iterator[MayPause]:
    with private_redis() as running:
        yield MayPause(running)


async def test_what_comes_in_time_is_the_answer(redis_url: str) -> None:
    client = connect_async(redis_url)
    await client.set("k", "v")
    assert await within(WAIT_S, client.get("k")) == b"v"
    await client.lpush("text", "x")
    with pytest.raises(RedisError, match="WRONGTYPE"):
        await within(WAIT_S, client.get("text"))
    await client.aclose()


async def test_a_late_answer_is_an_error_and_never_the_next_commands(server: MayPause) -> None:
    client = connect_async(server.url, retries=0)
    assert await client.get("a") == b"1"
    server.pause()
    with pytest.raises(RedisTimeoutError, match="not answered"):
        await within(0.1, client.get("a"))
    server.resume()
    assert [await client.get(key) for key in "bab"] == [b"2", b"1", b"2"]
    await client.aclose()


async def test_no_connection_is_kept_from_others_by_late_answers(server: MayPause) -> None:
    client = connect_async(server.url, retries=0)
    server.pause()
    for _ in range(3):
        asked = [within(0.1, client.get("a")) for _ in range(jobs.storage.connection._MAX_AT_ONCE)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(error) for error in found} == {RedisTimeoutError}
    server.resume()
    async with asyncio.timeout(WAIT_S):
        assert await client.get("a") == b"1"
    await client.aclose()


async def test_cancellation_of_who_waits_goes_through(server: MayPause) -> None:
    client = connect_async(server.url, retries=0)
    assert await client.get("a") == b"1"
    server.pause()
    for _ in range(20):
        waiting = asyncio.create_task(within(WAIT_S, client.get("a")))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    server.resume()
    assert [await client.get(key) for key in "bab"] == [b"2", b"1", b"2"]
    await client.aclose()
