"""Of two supervisors one runs a model, also after one of them was frozen for a while."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobs import names
from jobs.connection import SyncRedis, connect
from workers.node_identity import NodeIdentity
from workers.ownership import Ownership

ONE = NodeIdentity("11", "aa", "box")
TWO = NodeIdentity("22", "bb", "box")


@pytest.fixture
def redis(redis_url: str) -> Iterator[SyncRedis]:
    client = connect(redis_url)
    yield client
    client.close()


def test_who_slept_past_its_lock_learns_that_another_has_it(redis: SyncRedis) -> None:
    sleeper, other = Ownership(redis, ONE), Ownership(redis, TWO)
    assert sleeper.take("0")
    assert not other.take("0")
    redis.delete(names.owner_key("0"))  # as if it had expired
    assert other.take("0")
    assert sleeper.renew({"0"}) == {"0"}
    assert other.renew({"0"}) == set()
    assert not sleeper.take("0")


def test_a_lock_that_redis_lost_is_taken_again(redis: SyncRedis) -> None:
    owner = Ownership(redis, ONE)
    assert owner.take("0")
    redis.flushall()
    assert owner.renew({"0"}) == set()
    assert redis.ttl(names.owner_key("0")) > 0


def test_what_is_no_longer_run_is_free_at_once(redis: SyncRedis) -> None:
    owner, other = Ownership(redis, ONE), Ownership(redis, TWO)
    assert owner.take("0")
    owner.renew(set())
    assert other.take("0")
