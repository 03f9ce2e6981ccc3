"""What a key of the keys file may do: classes, models, jobs at once, requests and tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.keys.caller import caller_of_name
from jobs.keys.editing import add_key
from jobs.storage import names, object_names
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig, check_error_shape, running_api

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
BACKGROUND = {**HELLO, "background": True}


class Locked:
    """A server with a keys file, and the keys by their names."""

    def __init__(self, rig: Rig, file: Path) -> None:
        self.rig = rig
        self.file = file
        self.keys: dict[str, str] = {}

    def add(self, name: str, **options) -> str:
        self.keys[name] = add_key(self.file, name, options)
        return self.keys[name]

    def post(self, name: str, body=None, path: str = CHAT):
        return self.rig.post(path, HELLO if body is None else body, X_Api_Key=self.keys[name])

    def get(self, name: str, path: str):
        return self.rig.http.get(path, headers={"X-Api-Key": self.keys[name]})


@pytest.fixture
def locked(tmp_path: Path, redis_url: str) -> Iterator[Locked]:
    file = tmp_path / "keys.toml"
    add_key(file, "root", {"is_manager": True})
    with running_api(tmp_path, redis_url, keys_file=file) as rig:
        rig.load()
        yield Locked(rig, file)


def test_a_new_key_is_known_at_once_and_a_removed_one_is_not(locked: Locked) -> None:
    from jobs.keys.editing import remove_key, rotate_key

    old = locked.add("alice")
    assert locked.get("alice", "/v1/models").status_code == 200
    locked.keys["alice"] = rotate_key(locked.file, "alice")
    assert locked.get("alice", "/v1/models").status_code == 200
    assert locked.rig.http.get("/v1/models", headers={"X-Api-Key": old}).status_code == 401
    remove_key(locked.file, "alice")
    assert locked.get("alice", "/v1/models").status_code == 401
    assert locked.rig.http.get("/v1/models").status_code == 401


def test_a_rotated_key_keeps_its_jobs(locked: Locked) -> None:
    from jobs.keys.editing import rotate_key

    locked.add("alice")
    job_id = locked.post("alice", BACKGROUND).json()["id"]
    locked.keys["alice"] = rotate_key(locked.file, "alice")
    assert locked.get("alice", f"/v1/jobs/{job_id}").status_code == 200


def test_a_broken_edit_leaves_the_keys_as_they_were(locked: Locked) -> None:
    locked.add("alice")
    assert locked.get("alice", "/v1/models").status_code == 200
    good = locked.file.read_text()
    for text in (good + "[[keys]\n", good + "rpm = 0\n", "keys = 1", "\0"):
        locked.file.write_text(text)
        assert locked.get("alice", "/v1/models").status_code == 200, text
    locked.file.unlink()
    assert locked.get("alice", "/v1/models").status_code == 200
    locked.file.write_text("")
    assert locked.get("alice", "/v1/models").status_code == 401


def test_only_a_manager_s_key_may_manage(locked: Locked) -> None:
    locked.add("alice")
    locked.add("admin", is_manager=True)
    assert locked.get("alice", "/management/processes").status_code == 403
    assert locked.get("admin", "/management/processes").status_code == 200
    told = locked.get("alice", "/v1/whoami").json()
    assert (told["is_key_required"], told["may_manage"], told["key"]) == (True, False, "alice")


def test_a_key_without_a_class_gets_a_403(locked: Locked) -> None:
    locked.add("night", classes=["batch"])
    answer = locked.post("night")
    assert answer.status_code == 403
    check_error_shape(answer.json())
    assert answer.json()["error"]["code"] == "key_not_allowed"


def test_a_model_that_is_not_the_key_s_is_not_there(locked: Locked) -> None:
    locked.add("alice", models=["tiny*"])
    locked.add("bob", models=["fa?e"])
    answers = [
        locked.post("alice"),
        locked.post("alice", {**HELLO, "model": "fake"}),
        locked.post("alice", {**HELLO, "model": "fake-20ms"}),
        locked.get("alice", "/v1/models/fake"),
        locked.get("alice", "/v1/internal/model/info"),
        locked.get("alice", "/v1/internal/model/info/fake"),
        locked.get("alice", "/v1/internal/model/estimate?llm_model_name=fake"),
        locked.get("alice", "/slots"),
        locked.get("alice", "/props"),
        locked.post("alice", {"model": "fake"}, "/api/show"),
    ]
    assert [answer.status_code for answer in answers] == [404] * len(answers)
    shown = [
        locked.get("alice", path).text
        for path in ("/v1/models", "/v1/internal/model/list", "/api/tags", "/metrics", "/api/ps")
    ]
    assert not [text for text in shown if "fake" in text]
    locked.rig.redis.delete(names.status_key("0"))
    assert "model_id '0'" in locked.get("bob", "/health/ready").text
    assert "model_id '0'" not in locked.get("alice", "/health/ready").text
    assert locked.post("bob", BACKGROUND).status_code == 202
    assert [one["id"] for one in locked.get("bob", "/v1/models").json()["data"]] == ["fake"]


def test_beyond_its_own_limit_of_jobs_a_key_gets_a_429(locked: Locked) -> None:
    locked.add("alice", max_jobs=1)
    locked.add("bob")
    locked.rig.redis.hset(names.TOTALS, "timed_jobs 0", 2)
    locked.rig.redis.hset(names.TOTALS, "decode_s 0", 60)
    assert locked.post("alice", BACKGROUND).status_code == 202
    answer = locked.post("alice", BACKGROUND)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "30")
    assert answer.json()["error"]["code"] == "key_limit"
    for _ in range(3):
        assert locked.post("bob", BACKGROUND).status_code == 202
    locked.rig.take().answer("x")
    assert locked.post("alice", BACKGROUND).status_code == 202


def spend(locked: Locked, name: str, **used: int) -> list[str]:
    """Requests or tokens of this minute and of the next, in case it begins. Their keys."""
    minute = int(locked.rig.store.now()) // 60
    keys = [f"{object_names.rate_key(caller_of_name(name))}:{n}" for n in (minute, minute + 1)]
    for key in keys:
        locked.rig.redis.hset(key, mapping=used)
    return keys


def test_requests_per_minute_are_counted_and_told(locked: Locked) -> None:
    locked.add("alice", rpm=2)
    locked.add("bob")
    spend(locked, "alice", requests=1)
    told = locked.post("alice", BACKGROUND)
    assert (told.status_code, told.headers["x-ratelimit-remaining-requests"]) == (202, "0")
    spend(locked, "alice", requests=2)
    refused = locked.post("alice", BACKGROUND)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["x-ratelimit-limit-requests"] == "2"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert re.fullmatch(r"\d+ms|\d+(\.\d+)?s|1m0s", refused.headers["x-ratelimit-reset-requests"])
    assert refused.headers["RateLimit-Policy"] == '"rpm";q=2;w=60'
    assert re.fullmatch(r'"rpm";r=0;t=\d+', refused.headers["RateLimit"])
    assert "x-ratelimit-limit-tokens" not in refused.headers
    others = locked.post("bob", BACKGROUND)
    assert not [name for name in others.headers if "ratelimit" in name]


def test_tokens_are_reserved_at_first_and_counted_at_the_end(locked: Locked) -> None:
    locked.add("alice", tpm=1000)
    keys = spend(locked, "alice", tokens=50)
    started = locked.post("alice", {**BACKGROUND, "max_tokens": 900})
    assert started.status_code == 202
    assert started.headers["x-ratelimit-remaining-tokens"] == "50"
    job_id = started.json()["id"]
    assert locked.rig.record(job_id).reserved_tokens == 900
    locked.rig.take().finished(completion_tokens=2000)
    wait_until(lambda: locked.rig.record(job_id).status.is_terminal, "the job's end")
    counts = [int(locked.rig.redis.hget(key, "tokens")) for key in keys]
    assert sum(counts) == 50 + 50 + 2003
    spend(locked, "alice", tokens=999)
    refused = locked.post("alice", BACKGROUND)
    assert (refused.status_code, refused.headers["x-ratelimit-remaining-tokens"]) == (429, "1")
    assert "999 are used, this needs 4" in refused.json()["error"]["message"]


def test_tokens_that_were_not_used_are_given_back(locked: Locked) -> None:
    locked.add("alice", tpm=1000)
    store = locked.rig.store
    job_id = locked.post("alice", {**BACKGROUND, "max_tokens": 900}).json()["id"]
    store.cancel(job_id, "enough")
    store.cancel(job_id, "enough")
    minute = int(locked.rig.record(job_id).created_at) // 60
    left = locked.rig.redis.hget(
        f"{object_names.rate_key(caller_of_name('alice'))}:{minute}", "tokens"
    )
    assert left in (b"0", b"900"), "900: the job ended in another minute"
    for key in locked.rig.redis.keys(object_names.rate_key("*")):
        assert 0 < locked.rig.redis.ttl(key) <= 120


def test_a_request_larger_than_the_limit_is_not_refused_for_ever(locked: Locked) -> None:
    locked.add("alice", tpm=100)
    assert locked.post("alice", {**BACKGROUND, "max_tokens": 5000}).status_code == 202


def test_a_priority_is_clamped_and_weight_and_limits_go_along(locked: Locked) -> None:
    locked.add("alice", weight=2.5, priority_floor=10, max_running=3)
    job_id = locked.post("alice", BACKGROUND).json()["id"]
    record = locked.rig.record(job_id)
    assert (record.priority, record.weight, record.max_running) == (10, 2.5, 3)
    assert (record.caller, record.model) == (caller_of_name("alice"), "fake")


def test_the_headers_of_anthropic_s_routes_are_anthropic_s(locked: Locked) -> None:
    locked.add("alice", rpm=5, tpm=10000)
    body = {"model": "fake", "max_tokens": 5, "messages": HELLO["messages"]}
    future = locked.rig.post_soon("/v1/messages", body, X_Api_Key=locked.keys["alice"])
    locked.rig.take().answer("x")
    headers = future.result().headers
    assert headers["anthropic-ratelimit-requests-limit"] == "5"
    assert headers["anthropic-ratelimit-tokens-limit"] == "10000"
    assert re.fullmatch(r"[-\d]+T[:\d]+Z", headers["anthropic-ratelimit-requests-reset"])
    assert not [name for name in headers if name.startswith("x-ratelimit")]
    assert headers["RateLimit-Policy"] == '"rpm";q=5;w=60, "tpm";q=10000;w=60;qu="tokens"'


def test_api_processes_count_together(
    locked: Locked, tmp_path_factory: pytest.TempPathFactory, redis_url: str
) -> None:
    key = locked.add("alice", rpm=3)
    folder = tmp_path_factory.mktemp("other")
    with running_api(folder, redis_url, keys_file=locked.file) as other:
        rigs = [locked.rig, other, locked.rig, other, locked.rig, other]
        answers = [rig.post(CHAT, BACKGROUND, X_Api_Key=key) for rig in rigs]
    codes = [answer.status_code for answer in answers]
    assert 3 <= codes.count(202) <= 6, "more than three only if a minute has begun"
    spend(locked, "alice", requests=3)
    assert locked.post("alice", BACKGROUND).status_code == 429


def test_a_key_that_is_not_for_batches_makes_none(locked: Locked) -> None:
    locked.add("day", classes=["interactive"])
    flex = {**BACKGROUND, "service_tier": "flex"}
    batch = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h"}
    params = {"model": "fake", "max_tokens": 3, "messages": HELLO["messages"]}
    message_batch = {"requests": [{"custom_id": "a", "params": params}]}
    answers = [
        locked.post("day", flex),
        locked.post("day", batch, "/v1/batches"),
        locked.post("day", {}, "/v1/batches/batch_x/retry"),
        locked.post("day", message_batch, "/v1/messages/batches"),
    ]
    assert [answer.status_code for answer in answers] == [403] * 4
    assert locked.post("day", BACKGROUND).status_code == 202


_TEXT = {"prompt": "hi"}
_RUNNING: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO["messages"]},
    "/v1/completions": _TEXT,
    "/v1/responses": {"input": "hi"},
    "/v1/responses/input_tokens": {"input": "hi"},
    "/v1/messages": {"max_tokens": 3, "messages": HELLO["messages"]},
    "/v1/messages/count_tokens": {"messages": HELLO["messages"]},
    "/completion": _TEXT,
    "/infill": {"input_prefix": "a", "input_suffix": "b"},
    "/v1/embeddings": {"input": "hi"},
    "/v1/rerank": {"query": "a", "documents": ["b"]},
    "/v1/tokenize": {"content": "hi"},
    "/v1/detokenize": {"tokens": [1]},
    "/v1/apply-template": {"messages": HELLO["messages"]},
    "/v1/internal/token-count": _TEXT,
    "/v1/internal/encode": {"text": "hi"},
    "/v1/internal/decode": {"tokens": [1]},
    "/v1/internal/logits": {"prompt": "hi"},
    "/api/chat": {"messages": HELLO["messages"]},
    "/api/generate": _TEXT,
    "/api/embed": {"input": "hi"},
    "/api/embeddings": {"prompt": "hi"},
}


@pytest.mark.parametrize("path", _RUNNING)
def test_no_route_runs_a_model_that_is_not_the_key_s(locked: Locked, path: str) -> None:
    """Neither by its name nor by its id, and no error tells that it is there."""
    key = locked.add("alice", models=["tiny*"])
    by_name = locked.rig.post(path, {**_RUNNING[path], "model": "fake"}, X_Api_Key=key)
    by_id = locked.rig.post(path, _RUNNING[path], X_Api_Key=key, X_Model_Id="0")
    by_default = locked.rig.post(path, _RUNNING[path], X_Api_Key=key)
    for answer in (by_name, by_id, by_default):
        assert answer.status_code in (400, 404), answer.text
        assert answer.status_code == 404 or "model" in answer.text
    assert "fake" not in by_id.text + by_default.text
    assert locked.rig.waiting_ids() == []
    assert locked.rig.redis.llen(locked.rig.store.queue(names.control_queue("0")).key) == 0


def test_an_alias_does_not_tell_of_another_s_model(
    tmp_path: Path, redis_url: str, locked: Locked
) -> None:
    key = locked.add("alice", models=["tiny*"])
    folder = tmp_path / "other"
    folder.mkdir()
    aliases = "gpt-4o=fake,claude-*=fake"
    with running_api(folder, redis_url, keys_file=locked.file, model_aliases=aliases) as rig:
        for model in ("gpt-4o", "claude-9", "gpt-4o-thinking"):
            answer = rig.post(CHAT, {**HELLO, "model": model}, X_Api_Key=key)
            assert answer.status_code == 404
            assert "fake" not in answer.text


def test_the_settings_keys_stay_what_they_were(tmp_path: Path, redis_url: str) -> None:
    """Beside a keys file, too."""
    file = tmp_path / "keys.toml"
    alice = add_key(file, "alice", {})
    with running_api(tmp_path, redis_url, keys_file=file, api_key="user") as rig:
        rig.load()
        assert _may_manage(rig, "user") == (True, "default")
        assert _may_manage(rig, alice) == (False, "alice")
        assert rig.http.get("/v1/models").status_code == 401
        mine = rig.post(CHAT, BACKGROUND, X_Api_Key=alice).json()["id"]
        assert rig.http.get(f"/v1/jobs/{mine}", headers={"X-Api-Key": "user"}).status_code == 200
    keys = {"keys_file": file, "api_key": "user", "management_key": "boss"}
    with running_api(tmp_path, redis_url, **keys) as rig:
        assert _may_manage(rig, "user") == (False, "default")
        assert _may_manage(rig, "boss") == (True, "management")
        for key, status in (("user", 404), ("boss", 200), (alice, 200)):
            answer = rig.http.get(f"/v1/jobs/{mine}", headers={"X-Api-Key": key})
            assert answer.status_code == status, key
    with running_api(tmp_path, redis_url, management_key="boss") as rig:
        assert _may_manage(rig, "") == (False, "")
        assert rig.http.get(f"/v1/jobs/{mine}").status_code == 404
        assert rig.post(CHAT, BACKGROUND).status_code == 202
    with running_api(tmp_path, redis_url) as rig:
        assert _may_manage(rig, "") == (True, "")
        assert rig.http.get(f"/v1/jobs/{mine}").status_code == 200


def _may_manage(rig: Rig, key: str) -> tuple[bool, str]:
    told = rig.http.get("/v1/whoami", headers={"X-Api-Key": key}).json()
    return told["may_manage"], told["key"]
