"""A transaction that is one command on the wire."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis.exceptions import ResponseError

from jobs.storage.connection import SyncRedis, connect_bookkeeping


@pytest.fixture
def redis(redis_url: str) -> Iterator[SyncRedis]:
    client = connect_bookkeeping(redis_url)
    yield client
    client.close()


def num_commands(redis: SyncRedis) -> int:
    """Commands that clients have sent, those inside scripts not counted."""
    stats = redis.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("multi", "exec"))


def test_it_does_what_a_transaction_does(redis: SyncRedis) -> None:
    before = num_commands(redis)
    with redis.pipeline() as pipe:
        pipe.hset("h", mapping={"a": bytes(range(256)), "b": 2.5})
        pipe.rpush("l", "x", "")
        pipe.exists("h")
        answers = pipe.execute()
    assert answers == [2, 2, 1]
    assert redis.hgetall("h") == {b"a": bytes(range(256)), b"b": b"2.5"}
    assert redis.lrange("l", 0, -1) == [b"x", b""]
    assert num_commands(redis) == before
    assert pipe.command_stack == []


def test_nothing_to_do_is_nothing(redis: SyncRedis) -> None:
    with redis.pipeline() as pipe:
        assert pipe.execute() == []


def test_an_error_is_an_error(redis: SyncRedis) -> None:
    redis.set("text", "x")
    with redis.pipeline() as pipe:
        pipe.rpush("text", 1)
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            pipe.execute()


def test_a_script_that_redis_has_forgotten_is_sent_again(redis: SyncRedis) -> None:
    for _ in range(2):
        with redis.pipeline() as pipe:
            pipe.incr("n")
            assert pipe.execute()
        redis.script_flush()


def test_a_watching_pipeline_still_notices(redis: SyncRedis) -> None:
    with redis.pipeline() as pipe:
        pipe.watch("w")
        pipe.multi()
        pipe.set("w", 1)
        assert pipe.execute() == [True]
