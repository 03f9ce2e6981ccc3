"""This version started on the Redis of an older one that was killed at work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from jobs.contract.requests import Task
from jobs.storage.connection import connect
from tests.helpers.private_redis import private_redis
from tests.helpers.upgrade import HASHED_ID, Upgrade, read_old_jobs, upgraded
from tests.helpers.upgrade_dump import load_dump

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module", params=["alone", "shared"])
def upgrade(request: pytest.FixtureRequest) -> Iterator[Upgrade]:
    """One upgrade for all tests here, and one of a Redis that another application uses too."""
    with upgraded(is_shared=request.param == "shared") as found:
        assert list(found.models()) == []
        yield found


def test_every_job_that_ran_or_waited_is_finished_token_for_token(upgrade: Upgrade) -> None:
    assert list(upgrade.generations()) == []


def test_every_model_that_was_wanted_is_loaded(upgrade: Upgrade) -> None:
    assert list(upgrade.models()) == []
    assert upgrade.server.chat("Hello!", HASHED_ID, max_tokens=4).status_code == 200


def test_jobs_that_had_ended_are_told_as_before(upgrade: Upgrade) -> None:
    assert list(upgrade.ended_jobs()) == []


def test_stored_responses_are_read_and_go_on(upgrade: Upgrade) -> None:
    list(upgrade.generations())
    assert list(upgrade.responses()) == []


def test_no_name_of_the_older_version_is_left(upgrade: Upgrade) -> None:
    list(upgrade.generations())
    assert list(upgrade.leftovers()) == []


def test_nothing_is_held_or_counted_that_is_over(upgrade: Upgrade) -> None:
    list(upgrade.generations())
    assert list(upgrade.books()) == []


def test_jobs_of_others_on_queues_of_the_old_names_stay(upgrade: Upgrade) -> None:
    list(upgrade.generations())
    assert list(upgrade.foreign_jobs()) == []


def test_the_dump_has_jobs_in_every_state_and_nothing_of_it_has_expired() -> None:
    with private_redis() as own, connect(own.url) as redis:
        load_dump(redis)
        jobs = read_old_jobs(redis)
        counts = Counter(job.record.status.value for job in jobs.values())
        assert counts == {"finished": 9, "failed": 1, "cancelled": 1, "running": 4, "queued": 8}
        running = [job for job in jobs.values() if job.record.status == "running"]
        assert all(len(job.events) >= 20 for job in running)
        tasks = {job.record.task for job in jobs.values() if job.record.status == "queued"}
        assert tasks == {Task.GENERATE, Task.EMBED, Task.TOKEN_COUNT, Task.LOAD}
        assert {job.record.is_background for job in jobs.values()} == {True, False}
        assert redis.llen("rq:queue:ctl-0:intermediate") == 1
        assert min(redis.ttl(key) for key in redis.keys("mgs:worker:*")) >= 1
