"""A script's own connection: it answers as redis-py would, whatever became of Redis meanwhile."""

from __future__ import annotations

import threading

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from jobs.connection import SyncRedis, connect
from jobs.script_line import ScriptLine
from tests.helpers.private_redis import private_redis

_SCRIPT = "return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}"


@pytest.fixture
def redis(redis_url: str) -> SyncRedis:
    return connect(redis_url, retries=0)


def test_it_answers_at_the_first_call_and_after_the_script_was_forgotten(redis: SyncRedis) -> None:
    line = ScriptLine(redis, _SCRIPT)
    assert line(["k"], ["é".encode()]) == [b"k", "é".encode(), 1]
    assert line(["k"], [7]) == [b"k", b"7", 2]
    redis.script_flush()
    assert line(["k"], ["x"]) == [b"k", b"x", 3]


def test_a_script_s_error_is_raised_and_the_line_stays_usable(redis: SyncRedis) -> None:
    line = ScriptLine(redis, _SCRIPT)
    redis.set("text", "no number")
    for _ in range(2):
        with pytest.raises(ResponseError, match="not an integer"):
            line(["text"], [1])
    assert line(["k"], [1])[2] == 1


def test_a_cut_connection_is_made_anew(redis: SyncRedis) -> None:
    line = ScriptLine(redis, _SCRIPT)
    for count in range(1, 6):
        assert line(["k"], [1])[2] == count
        redis.client_kill_filter(_type="normal", skipme=True)


def test_a_redis_that_is_away_is_an_error_until_it_is_back() -> None:
    with private_redis() as server:
        line = ScriptLine(connect(server.url, retries=0), _SCRIPT)
        line(["k"], [1])
        server.kill()
        for _ in range(2):
            with pytest.raises(RedisConnectionError):
                line(["k"], [1])
        server.start()
        assert line(["k"], [1])[2] == 1


def test_threads_get_their_own_answers(redis: SyncRedis) -> None:
    line = ScriptLine(redis, _SCRIPT)
    wrong: list[object] = []

    def call(name: str) -> None:
        for count in range(1, 201):
            answer = line([name], [count])
            if answer != [name.encode(), str(count).encode(), count]:
                wrong.append(answer)

    threads = [threading.Thread(target=call, args=(f"k{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
