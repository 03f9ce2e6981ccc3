"""The TCP proxy that simulates network faults."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from tests.conftest import RedisServer
from tests.helpers.resp import Splitter, command_name
from tests.helpers.tcp_proxy import Exchange, TcpProxy, tcp_proxy
from tests.helpers.waiting import wait_until


@pytest.fixture
def proxy(redis_server: RedisServer, redis_url: str) -> Iterator[TcpProxy]:
    with tcp_proxy(redis_server.socket) as running:
        yield running


@pytest.fixture
def client(proxy: TcpProxy) -> Iterator[Redis]:
    """A client without retries, with a time-out of 0.5 s."""
    retry = Retry(NoBackoff(), 0)
    with Redis.from_url(proxy.url, protocol=2, retry=retry, socket_timeout=0.5) as found:
        yield found


@pytest.fixture
def direct(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url, protocol=2) as found:
        yield found


def test_commands_pipelines_and_messages_are_forwarded(client: Redis) -> None:
    client.set("a", b"x" * 100_000)
    with client.pipeline() as pipe:
        for number in range(100):
            pipe.rpush("list", number)
        pipe.lrange("list", 0, -1)
        assert len(pipe.execute()[-1]) == 100
    assert client.get("a") == b"x" * 100_000
    listener = client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe("channel")
    wait_until(lambda: client.publish("channel", "hello"), "a subscriber")
    heard = wait_until(lambda: listener.get_message(timeout=0.1), "the message")
    assert heard["data"] == b"hello"
    listener.close()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_nth_reply_is_lost_after_the_command_was_executed(
    proxy: TcpProxy, client: Redis, direct: Redis, number: int
) -> None:
    proxy.lose_reply(number, lambda exchange: exchange.name == b"INCRBY")
    for expected in range(1, 5):
        client.get("other")
        if expected == number:
            with pytest.raises(RedisConnectionError):
                client.incr("counter")
        else:
            client.incr("counter")
        assert direct.get("counter") == str(expected).encode()


def test_a_transaction_is_one_exchange(proxy: TcpProxy, client: Redis, direct: Redis) -> None:
    seen: list[Exchange] = []

    def lose_transactions(exchange: Exchange) -> bool:
        seen.append(exchange)
        return exchange.name == b"EXEC"

    proxy.watch(lose_transactions)
    with client.pipeline() as pipe:
        pipe.set("a", 1)
        pipe.set("b", 2)
        with pytest.raises(RedisConnectionError):
            pipe.execute()
    assert direct.mget("a", "b") == [b"1", b"2"]
    executed = [exchange for exchange in seen if exchange.name == b"EXEC"]
    assert len(executed) == 1
    assert b"SET" in executed[0].command
    assert not [exchange for exchange in seen if exchange.name == b"SET"]


def test_a_delay_applies_to_each_direction_and_once_to_a_pipeline(
    proxy: TcpProxy, client: Redis
) -> None:
    client.ping()
    proxy.delay(0.05)
    start = time.monotonic()
    client.ping()
    assert time.monotonic() - start >= 0.1
    with client.pipeline(transaction=False) as pipe:
        for _ in range(50):
            pipe.ping()
        start = time.monotonic()
        assert pipe.execute() == [True] * 50
    assert time.monotonic() - start < 1.0


def test_a_cut_resets_open_connections_and_new_ones_are_accepted(
    proxy: TcpProxy, client: Redis
) -> None:
    client.ping()
    (before,) = proxy.links
    assert proxy.cut() == 1
    assert client.ping()  # redis-py detects the reset before it sends
    (after,) = proxy.links
    assert after is not before


def test_refused_clients_are_accepted_again(proxy: TcpProxy, client: Redis) -> None:
    client.ping()
    proxy.refuse()
    for _ in range(2):
        with pytest.raises(RedisConnectionError):
            client.ping()
    proxy.accept()
    assert client.ping()


def test_data_sent_during_a_silence_arrives_after_it(
    proxy: TcpProxy, client: Redis, direct: Redis
) -> None:
    client.ping()
    proxy.hold_data()
    answers: list[bool] = []
    patient = Redis.from_url(proxy.url, protocol=2, socket_timeout=20)
    thread = threading.Thread(target=lambda: answers.append(bool(patient.set("a", 1))))
    thread.start()
    with pytest.raises(RedisTimeoutError):
        client.ping()
    assert direct.get("a") is None
    proxy.release_data()
    thread.join(20)
    assert answers == [True]
    patient.close()


def test_without_a_server_connections_are_reset(tmp_path: Path) -> None:
    with tcp_proxy(tmp_path / "nothing") as proxy:
        client = Redis.from_url(proxy.url, protocol=2, retry=Retry(NoBackoff(), 0))
        with pytest.raises(RedisConnectionError):
            client.ping()
        client.close()


_SIMPLE = st.sampled_from(
    [b"+OK\r\n", b"-ERR no\r\n", b":17\r\n", b"$-1\r\n", b"*-1\r\n", b"*0\r\n"]
)
_BULK = st.binary(max_size=20).map(lambda data: b"$%d\r\n%s\r\n" % (len(data), data))
_MESSAGE = st.recursive(
    _SIMPLE | _BULK,
    lambda inner: st.lists(inner, max_size=4).map(
        lambda parts: b"*%d\r\n%s" % (len(parts), b"".join(parts))
    ),
    max_leaves=8,
)


@given(st.lists(_MESSAGE, max_size=6), st.integers(1, 7))
def test_messages_are_parsed_wherever_they_are_split(messages: list[bytes], size: int) -> None:
    stream = b"".join(messages)
    splitter, found = Splitter(), []
    for start in range(0, len(stream), size):
        found += splitter.feed(stream[start : start + size])
    assert found == messages


def test_a_command_is_named_by_its_first_word() -> None:
    assert command_name(b"*2\r\n$3\r\nget\r\n$1\r\na\r\n") == b"GET"
