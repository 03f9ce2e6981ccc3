"""Of two supervisors one runs a model, also after one of them was frozen for a while."""

from __future__ import annotations

import pytest

from jobs.storage import names
from jobs.storage.connection import SyncRedis
from workers.supervision.node_identity import NodeIdentity
from workers.supervision.ownership import Ownership

ONE = NodeIdentity("11", "aa", "box")
TWO = NodeIdentity("22", "bb", "box")


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


def test_the_lock_of_a_process_of_ours_that_is_gone_is_taken_at_once(redis: SyncRedis) -> None:
    assert Ownership(redis, ONE).take("0")
    successor = NodeIdentity(ONE.uid, "cc", "box", frozenset({"zz", ONE.token}))
    assert Ownership(redis, successor).take("0")
    assert redis.get(names.owner_key("0")) == successor.owner.encode()


@pytest.mark.parametrize(
    "holder",
    [
        f"{TWO.uid}|{TWO.token}",  # another node's
        f"{TWO.uid}|zz",  # another node's, with a token like one of ours
        f"{ONE.uid}|{ONE.token}",  # ours, of whose end nothing is known: a clone's, perhaps
        ONE.uid,
        "box:4711",  # an earlier version's
        "|zz",
    ],
)
def test_every_other_lock_is_waited_for(redis: SyncRedis, holder: str) -> None:
    redis.set(names.owner_key("0"), holder, ex=6)
    owner = Ownership(redis, NodeIdentity(ONE.uid, "cc", "box", frozenset({"zz"})))
    assert not owner.take("0")
    assert redis.get(names.owner_key("0")) == holder.encode()
    redis.delete(names.owner_key("0"))  # as if it had expired
    assert owner.take("0")


def test_equal_names_of_hosts_make_no_lock_ours(redis: SyncRedis) -> None:
    first, second = NodeIdentity("11", "aa", "box"), NodeIdentity("22", "aa", "box")
    assert Ownership(redis, first).take("0")
    assert not Ownership(redis, second).take("0")


def test_what_nobody_holds_may_be_left_to_others_unless_it_was_ours(redis: SyncRedis) -> None:
    owner = Ownership(redis, ONE)
    assert not owner.take("new", may_be_new=False)
    assert not redis.exists(names.owner_key("new"))
    assert owner.take("ours")
    redis.delete(names.owner_key("ours"))
    assert owner.take("ours", may_be_new=False)


def test_a_lock_that_others_have_by_now_is_not_released(redis: SyncRedis) -> None:
    owner, other = Ownership(redis, ONE), Ownership(redis, TWO)
    assert owner.take("0")
    redis.delete(names.owner_key("0"))
    assert other.take("0")
    owner.release("0")
    assert redis.get(names.owner_key("0")) == TWO.owner.encode()
    assert other.held == {"0"}
    assert owner.held == set()
