"""Which models a supervisor takes: what is free, what it can load, and while it sees clearly."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.contract.records import DesiredModel, WorkerState, WorkerStatus
from jobs.contract.requests import LoadRequest
from jobs.storage import names
from jobs.storage.connection import SyncRedis
from jobs.storage.contact import STABLE_AFTER_S, RedisContact
from jobs.storage.desired_models import DesiredModels, read_snapshot
from tests.helpers.clock import Clock
from tests.helpers.samples import settings_for
from workers.supervision.claimant import Claimant
from workers.supervision.node_identity import Neighbours, NodeIdentity
from workers.supervision.ownership import Ownership

HERE = NodeIdentity("11", "aa", "box", frozenset({"zz"}))
ELSEWHERE = NodeIdentity("22", "bb", "box")


@pytest.fixture
def contact(clock: Clock) -> RedisContact:
    return RedisContact(clock, clock)


@pytest.fixture
def ownership(redis: SyncRedis) -> Ownership:
    return Ownership(redis, HERE)


@pytest.fixture
def neighbours(clock: Clock) -> Neighbours:
    """One other node is known."""
    found = Neighbours(clock)
    found.look([HERE.uid, "other"], HERE.uid)
    return found


@pytest.fixture
def claimant(
    redis: SyncRedis,
    redis_url: str,
    tmp_path: Path,
    ownership: Ownership,
    contact: RedisContact,
    neighbours: Neighbours,
) -> Claimant:
    settings = settings_for(redis_url, tmp_path)
    return Claimant(settings, DesiredModels(redis), ownership, contact, neighbours)


def claim(claimant: Claimant, missing: dict[str, DesiredModel]) -> list[str]:
    """Take the models that may be loaded here."""
    return claimant.take(claimant.loadable(missing))


def desired(name: str = "fake", *, was_ready: bool = True) -> DesiredModel:
    return DesiredModel("0", "uid", LoadRequest(name, "fake"), "load-1", 1.0, was_ready)


def holder(redis: SyncRedis, slug: str = "0") -> str | None:
    found = redis.get(names.owner_key(slug))
    return found.decode() if found else None


def heartbeat(redis: SyncRedis, slug: str = "0") -> None:
    DesiredModels(redis).heartbeat(
        slug, WorkerStatus("0", WorkerState.READY, 1, "box", ["0.gen.x"])
    )


def test_a_free_model_is_taken(claimant: Claimant, redis: SyncRedis) -> None:
    assert claim(claimant, {"0": desired()}) == ["0"]
    assert claimant.take({"1", "2"}) == ["1", "2"]
    assert {holder(redis, slug) for slug in "012"} == {HERE.owner}


def test_what_another_runs_is_left_to_it(claimant: Claimant, redis: SyncRedis) -> None:
    assert Ownership(redis, ELSEWHERE).take("0")
    assert claim(claimant, {"0": desired()}) == []
    assert claimant.take({"0"}) == []
    assert holder(redis) == ELSEWHERE.owner


def test_who_was_blind_takes_nothing_new(
    claimant: Claimant, redis: SyncRedis, contact: RedisContact, clock: Clock
) -> None:
    contact.note_interruption()
    assert claim(claimant, {"0": desired()}) == []
    assert claimant.take({"1"}) == []
    assert (holder(redis), holder(redis, "1")) == (None, None)
    for _ in range(int(STABLE_AFTER_S)):
        clock.now += 1
        contact.note_answer()
    assert claim(claimant, {"0": desired()}) == ["0"]
    assert claimant.take({"1"}) == ["1"]


def test_who_was_blind_takes_what_was_its_own_again(
    claimant: Claimant, redis: SyncRedis, contact: RedisContact
) -> None:
    """Its lock has expired meanwhile, and its worker has sent heartbeats all the time."""
    assert claim(claimant, {"0": desired()}) == ["0"]
    redis.delete(names.owner_key("0"))
    heartbeat(redis)
    contact.note_interruption()
    assert claim(claimant, {"0": desired()}) == ["0"]
    assert holder(redis) == HERE.owner


def test_who_was_blind_leaves_what_others_took_meanwhile(
    claimant: Claimant, redis: SyncRedis, contact: RedisContact
) -> None:
    assert claim(claimant, {"0": desired()}) == ["0"]
    redis.delete(names.owner_key("0"))
    assert Ownership(redis, ELSEWHERE).take("0")
    contact.note_interruption()
    assert claim(claimant, {"0": desired()}) == []
    assert holder(redis) == ELSEWHERE.owner


def test_after_a_restart_the_models_of_the_process_before_are_taken_though_blind(
    claimant: Claimant, redis: SyncRedis, contact: RedisContact
) -> None:
    redis.set(names.owner_key("0"), f"{HERE.uid}|zz")
    contact.note_interruption()
    assert claim(claimant, {"0": desired()}) == ["0"]


@pytest.mark.parametrize("status", [None, b"of another version"])
def test_no_model_moves_while_its_worker_sends_heartbeats(
    claimant: Claimant, redis: SyncRedis, status: bytes | None
) -> None:
    """Its supervisor's lock may have expired; the worker has the model, and may have jobs."""
    if status is None:
        heartbeat(redis)
    else:
        redis.set(names.status_key("0"), status)
    assert claim(claimant, {"0": desired()}) == []
    assert claimant.take({"0"}) == []
    assert holder(redis) is None
    redis.delete(names.status_key("0"))
    assert claim(claimant, {"0": desired()}) == ["0"]


def test_a_model_that_has_been_ready_stays_where_its_files_are(
    claimant: Claimant, redis: SyncRedis, contact: RedisContact, clock: Clock
) -> None:
    missing = {"0": desired("not-here"), "1": desired()}
    for _ in range(100):
        clock.now += 1
        contact.note_answer()
        assert claim(claimant, missing) == ["1"]
    assert holder(redis) is None


def test_one_that_has_never_been_ready_is_taken_in_the_end_to_be_told_why_it_fails(
    claimant: Claimant, contact: RedisContact, clock: Clock
) -> None:
    missing = {"0": desired("not-here", was_ready=False), "1": desired()}
    for _ in range(3):
        assert claim(claimant, missing) == ["1"], "others have the time to take it first"
        clock.now += 1
        contact.note_answer()
    assert claim(claimant, missing) == ["0", "1"]


def test_the_time_without_files_begins_anew_for_the_next_desired_model(
    claimant: Claimant, contact: RedisContact, clock: Clock
) -> None:
    missing = {"0": desired("not-here", was_ready=False), "1": desired()}
    for second in range(6):
        # In the third one another has it; then it is free again.
        assert claim(claimant, missing if second != 2 else {"1": desired()}) == ["1"]
        clock.now += 1
        contact.note_answer()
    assert claim(claimant, missing) == ["0", "1"]


def test_only_what_can_start_here_again_is_held_for_its_next_start(
    claimant: Claimant, redis: SyncRedis, ownership: Ownership
) -> None:
    desired_models = DesiredModels(redis)
    for slug, one in {
        "0": desired(),
        "1": desired("not-here"),
        "2": desired(),
        "3": desired(),
    }.items():
        desired_models.put(slug, one)
        assert ownership.take(slug)
    redis.hset(names.DESIRED_MODELS, "4", b"of another version")
    assert ownership.take("4")
    assert ownership.take("unwanted")
    snapshot = read_snapshot(redis.hgetall(names.DESIRED_MODELS))
    assert claimant.to_restart(snapshot, {"3"}) == {"0", "2", "4"}


def test_who_is_alone_takes_at_once_however_little_it_sees(
    redis: SyncRedis, redis_url: str, tmp_path: Path, ownership: Ownership, contact: RedisContact
) -> None:
    """A busy machine looks seldom; there is nobody from whom anything could be taken."""
    contact.note_interruption()
    alone = Neighbours()
    alone.look([HERE.uid], HERE.uid)
    settings = settings_for(redis_url, tmp_path)
    claimant = Claimant(settings, DesiredModels(redis), ownership, contact, alone)
    assert claim(claimant, {"0": desired()}) == ["0"]


def test_a_node_is_remembered_when_redis_has_forgotten_it(clock: Clock) -> None:
    neighbours = Neighbours(clock)
    neighbours.look([HERE.uid, "other"], HERE.uid)
    neighbours.look([HERE.uid], HERE.uid)
    assert not neighbours.is_empty
    clock.now += 601
    neighbours.look([HERE.uid], HERE.uid)
    assert neighbours.is_empty
