"""What keys have used: counted where jobs end, shown per key, model and day."""

from __future__ import annotations

from datetime import timedelta

import pytest

from jobs.keys.caller import caller_of_name
from jobs.keys.usage import KEPT_DAYS, today
from jobs.storage import object_names
from tests.helpers.waiting import wait_until
from tests.integration.test_key_limits import BACKGROUND, Locked, locked

__all__ = ["locked"]


def used(locked: Locked, name: str, query: str = "") -> list[dict]:
    answer = locked.get(name, f"/v1/usage{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def run(locked: Locked, name: str) -> None:
    job_id = locked.post(name, BACKGROUND).json()["id"]
    locked.rig.take().answer("x")
    wait_until(lambda: locked.rig.record(job_id).status.is_terminal, "the job's end")


def test_a_key_sees_its_own_use_and_a_manager_all(locked: Locked) -> None:
    locked.add("alice")
    locked.add("bob")
    locked.add("admin", is_manager=True)
    for name in ("alice", "alice", "bob"):
        run(locked, name)
    [mine] = used(locked, "alice", "?group_by=key")
    assert mine == {
        "object": "usage",
        "day": None,
        "key": "alice",
        "model": None,
        "num_jobs": 2,
        "num_failed": 0,
        "num_cancelled": 0,
        "prompt_tokens": 6,
        "cached_tokens": 2,
        "completion_tokens": 4,
        "total_tokens": 10,
    }
    assert [one["key"] for one in used(locked, "admin", "?group_by=key")] == ["alice", "bob"]
    [whole] = used(locked, "bob")
    assert (whole["key"], whole["model"]) == ("bob", "fake")
    assert sum(one["num_jobs"] for one in used(locked, "admin", "?group_by=model")) == 3


def test_limits_stand_beside_the_use_of_keys_that_one_may_see(locked: Locked) -> None:
    locked.add("alice", rpm=60, tpm=9000, max_jobs=5, max_running=2, models=["fake"])
    locked.add("admin", is_manager=True)
    [mine] = locked.get("alice", "/v1/usage").json()["keys"]
    assert mine == {
        "name": "alice",
        "is_manager": False,
        "weight": 1.0,
        "classes": ["batch", "interactive"],
        "models": ["fake"],
        "max_jobs": 5,
        "max_running": 2,
        "rpm": 60,
        "tpm": 9000,
    }
    seen = {key["name"]: key for key in locked.get("admin", "/v1/usage").json()["keys"]}
    assert [*seen] == ["admin", "alice", "root"]
    assert seen["alice"] == mine
    assert (seen["admin"]["is_manager"], seen["admin"]["max_running"]) == (True, None)


def test_ends_of_all_kinds_are_counted_once(locked: Locked) -> None:
    locked.add("alice")
    job_id = locked.post("alice", BACKGROUND).json()["id"]
    locked.rig.store.cancel(job_id, "enough")
    locked.rig.store.cancel(job_id, "enough")
    locked.post("alice", BACKGROUND)
    locked.rig.take().failed("engine_error", "no")
    locked.post("alice", BACKGROUND)
    assert locked.rig.store.purge("0", -1.0) == (1, 0)
    [mine] = used(locked, "alice", "?group_by=key")
    assert (mine["num_jobs"], mine["num_failed"], mine["num_cancelled"]) == (3, 1, 2)


def test_a_removed_key_s_use_stays_under_its_id(locked: Locked) -> None:
    from jobs.keys.editing import remove_key

    locked.add("alice")
    locked.add("admin", is_manager=True)
    run(locked, "alice")
    remove_key(locked.file, "alice")
    [left] = used(locked, "admin", "?group_by=key")
    assert left["key"] == caller_of_name("alice")
    metrics = locked.get("admin", "/metrics").text
    assert 'mgs_key_jobs_ended_total{key="(removed)",status="finished"} 1.0' in metrics
    assert caller_of_name("alice") not in metrics


def test_metrics_name_keys(locked: Locked) -> None:
    locked.add("alice")
    run(locked, "alice")
    metrics = locked.get("alice", "/metrics").text
    assert 'mgs_key_jobs_ended_total{key="alice",status="finished"} 1.0' in metrics
    assert 'mgs_key_tokens_total{key="alice",kind="generated"} 2.0' in metrics
    assert caller_of_name("alice") not in metrics


def test_a_time_and_groups_can_be_chosen(locked: Locked) -> None:
    locked.add("alice")
    run(locked, "alice")
    day = today()
    for n in (1, 2, KEPT_DAYS + 5):
        key = object_names.usage_key((day - timedelta(n)).toordinal() - 719163)
        locked.rig.redis.hset(key, f"finished {caller_of_name('alice')} old", n)
    assert [one["num_jobs"] for one in used(locked, "alice", "?group_by=day")] == [2, 1, 1]
    query = f"?from={day - timedelta(2)}&to={day - timedelta(2)}"
    [two] = used(locked, "alice", query)
    assert (two["day"], two["model"], two["num_jobs"]) == (str(day - timedelta(2)), "old", 2)
    assert used(locked, "alice", "?from=1999-01-01&to=1999-12-31") == []
    far = used(locked, "alice", "?from=1999-01-01&group_by=key")
    assert far[0]["num_jobs"] == 4
    assert locked.get("alice", "/v1/usage?to=9999-12-31&from=9999-01-01").json()["data"] == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("from=yesterday", "from"),
        ("to=2026-13-01", "to"),
        ("from=2026-02-02&to=2026-02-01", "from"),
        ("group_by=week", "group_by"),
        ("group_by=key,key", "group_by"),
        ("group_by=", "group_by"),
    ],
)
def test_what_is_wrong_is_named(locked: Locked, query: str, param: str) -> None:
    locked.add("alice")
    answer = locked.get("alice", f"/v1/usage?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_one_unreadable_field_hides_no_other(locked: Locked) -> None:
    locked.add("alice")
    run(locked, "alice")
    key = object_names.usage_key(today().toordinal() - 719163)
    locked.rig.redis.hset(key, mapping={b"\xff": 1, "finished": 1, "finished x y": "z"})
    locked.rig.redis.hset(object_names.USAGE, "what", "ever")
    assert used(locked, "alice", "?group_by=key")[0]["num_jobs"] == 1
    assert locked.get("alice", "/metrics").status_code == 200


def test_a_spoiled_key_keeps_no_job_from_its_end(locked: Locked) -> None:
    locked.add("alice")
    locked.rig.redis.set(object_names.USAGE, "spoiled")
    run(locked, "alice")


def test_many_models_of_a_day_are_counted_together(locked: Locked, monkeypatch) -> None:
    key = object_names.usage_key(today().toordinal() - 719163)
    locked.rig.redis.hset(key, mapping={f"finished x {n}": 1 for n in range(6000)})
    locked.add("alice")
    run(locked, "alice")
    assert [one["model"] for one in used(locked, "alice")] == ["(other)"]
    assert 0 < locked.rig.redis.ttl(key) <= 91 * 86400
