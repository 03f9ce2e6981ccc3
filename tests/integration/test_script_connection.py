"""A script's own connection: it answers as redis-py would, whatever became of Redis meanwhile."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from jobs.storage.connection import SyncRedis, connect
from jobs.storage.script_connection import ScriptConnection
from tests.helpers.private_redis import private_redis

_SCRIPT = "return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}"


@pytest.fixture
def redis(redis_url: str) -> SyncRedis:
    return connect(redis_url, retries=0)


def test_it_answers_at_the_first_call_and_after_the_script_was_forgotten(redis: SyncRedis) -> None:
    connection = ScriptConnection(redis, _SCRIPT)
    assert connection(["k"], ["é".encode()]) == [b"k", "é".encode(), 1]
    assert connection(["k"], [7]) == [b"k", b"7", 2]
    redis.script_flush()
    assert connection(["k"], ["x"]) == [b"k", b"x", 3]


def test_a_script_s_error_is_raised_and_the_line_stays_usable(redis: SyncRedis) -> None:
    connection = ScriptConnection(redis, _SCRIPT)
    redis.set("text", "no number")
    for _ in range(2):
        with pytest.raises(ResponseError, match="not an integer"):
            connection(["text"], [1])
    assert connection(["k"], [1])[2] == 1


def test_a_cut_connection_is_made_anew(redis: SyncRedis) -> None:
    connection = ScriptConnection(redis, _SCRIPT)
    for count in range(1, 6):
        assert connection(["k"], [1])[2] == count
        redis.client_kill_filter(_type="normal", skipme=True)


def test_a_redis_that_is_away_is_an_error_until_it_is_back() -> None:
    with private_redis() as server:
        connection = ScriptConnection(connect(server.url, retries=0), _SCRIPT)
        connection(["k"], [1])
        server.kill()
        for _ in range(2):
            with pytest.raises(RedisConnectionError):
                connection(["k"], [1])
        server.start()
        assert connection(["k"], [1])[2] == 1


def test_threads_get_their_own_answers(redis: SyncRedis) -> None:
    connection = ScriptConnection(redis, _SCRIPT)
    wrong: list[object] = []

    def call(name: str) -> None:
        for count in range(1, 201):
            answer = connection([name], [count])
            if answer != [name.encode(), str(count).encode(), count]:
                wrong.append(answer)

    threads = [threading.Thread(target=call, args=(f"k{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_answer_may_be_asked_for_later_and_in_any_order(redis: SyncRedis) -> None:
    connection = ScriptConnection(redis, _SCRIPT)
    connection(["k"], ["first"])
    calls = [connection.send(["k"], [number]) for number in range(4)]
    assert connection(["k"], ["last"])[2] == 6
    for number in (2, 0, 3, 1):
        assert calls[number].wait() == [b"k", str(number).encode(), number + 2]


def test_an_answer_that_a_cut_connection_has_swallowed_is_asked_for_again(redis: SyncRedis) -> None:
    connection = ScriptConnection(redis, "return redis.call('SADD', KEYS[1], ARGV[1])")
    connection(["s"], ["first"])
    lost = connection.send(["s"], ["second"])
    redis.client_kill_filter(_type="normal", skipme=True)
    assert lost.wait() in (0, 1)
    assert redis.smembers("s") == {b"first", b"second"}


def test_what_could_not_be_sent_is_an_error_for_who_asks() -> None:
    with private_redis() as server:
        connection = ScriptConnection(connect(server.url, retries=0), _SCRIPT)
        connection(["k"], [1])
        server.kill()
        unsent = connection.send(["k"], [2])
        with pytest.raises(RedisConnectionError):
            unsent.wait()
        server.start()
        assert unsent.wait() == [b"k", b"2", 1]


def test_a_redis_that_says_nothing_is_not_waited_for_without_end(redis_url: str) -> None:
    redis = connect(redis_url, retries=0)
    redis.connection_pool.connection_kwargs["socket_timeout"] = 0.2
    connection = ScriptConnection(redis, "return 1")
    assert connection([], []) == 1
    assert connection([], []) == 1  # on the connection's own socket by now
    other = connect(redis_url)
    other.execute_command("CLIENT", "PAUSE", 600)
    with pytest.raises(RedisTimeoutError):
        connection([], [])
    other.execute_command("CLIENT", "UNPAUSE")
    assert connection([], []) == 1


def test_a_late_answer_is_an_error_and_who_asks_once_more_has_it_sent_again() -> None:
    with private_redis() as server:
        redis = connect(server.url, retries=0)
        redis.connection_pool.connection_kwargs["socket_timeout"] = 0.2
        connection = ScriptConnection(redis, "return redis.call('INCR', KEYS[1])")
        assert connection(["k"], []) == 1
        pid = redis.info("server")["process_id"]
        redis.connection_pool.disconnect()
        os.kill(pid, signal.SIGSTOP)
        late = connection.send(["k"], [])
        with pytest.raises(RedisTimeoutError):
            late.wait()
        os.kill(pid, signal.SIGCONT)
        assert int(redis.get("k")) == 2, "what was sent once is done once"
        assert late.wait() == 3


def test_a_master_that_is_one_no_more_is_left() -> None:
    """A new connection may lead to the new master."""
    with private_redis() as server:
        redis = connect(server.url, retries=0)
        connection = ScriptConnection(redis, _SCRIPT)
        connection(["k"], [1])
        redis.replicaof("127.0.0.1", 1)
        with pytest.raises(ReadOnlyError):
            connection(["k"], [1])
        assert connection._connection is None
        redis.replicaof("no", "one")
        assert connection(["k"], [1])[2] == 2
