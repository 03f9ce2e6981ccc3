"""Renaming keys: what the table's moves do, and how often."""

from __future__ import annotations

import pytest

from jobs.storage import names
from jobs.storage.connection import SyncRedis
from jobs.upgrade import moves
from jobs.upgrade.moves import TABLE, MoveFields, upgrade


def test_the_fields_of_a_hash_get_another_name_and_what_is_there_already_stays(
    redis: SyncRedis,
) -> None:
    redis.hset("old", mapping={"a": "1", "b": "2"})
    redis.hset("new", "b", "newer")
    move = MoveFields("old", "new")
    assert move.make(redis) == 1
    assert redis.hgetall("new") == {b"a": b"1", b"b": b"newer"}
    assert not redis.exists("old")
    assert move.make(redis) == 0, "made again it changes nothing"


def test_a_redis_sees_each_move_once(redis: SyncRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line added to the table is made on a Redis that has seen all the others."""
    upgrade(redis, lambda: False)
    assert redis.get(names.LAYOUT) == str(len(TABLE)).encode()
    redis.hset("old", "a", "1")
    monkeypatch.setattr(moves, "TABLE", (*TABLE, MoveFields("old", "new")))
    upgrade(redis, lambda: False)
    assert redis.hgetall("new") == {b"a": b"1"}
    redis.hset("old", "a", "2")
    upgrade(redis, lambda: False)
    assert redis.hgetall("old") == {b"a": b"2"}, "it has been seen"
