"""/v1/messages/batches before anybody works on them: what is taken, refused, and left on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

import api.dialects.anthropic.batches.receiving
from jobs.batches.input_file import check_input
from jobs.batches.records import MAX_MESSAGES
from jobs.keys.keys_file import hash_of
from tests.helpers.anthropic_bodies import check_anthropic_error
from tests.helpers.private_redis import private_redis
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig, running_api

PATH = "/v1/messages/batches"


def request(custom_id: str = "a", **fields: Any) -> dict[str, Any]:
    params = {"model": "fake", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    return {"custom_id": custom_id, "params": params, **fields}


def create(rig: Rig, *requests: Any) -> httpx.Response:
    return rig.post(PATH, {"requests": list(requests)})


def left_on_disk(rig: Rig) -> set[Path]:
    root = rig.settings.files_folder
    return {path for path in root.rglob("*") if path.is_file() and path.name != "uid"}


def test_the_input_has_a_line_for_each_request(rig: Rig) -> None:
    requests = [request(f"r{n}", more=n) for n in range(1000)]
    body = json.dumps({"requests": requests}, indent=4).encode()
    answer = rig.http.post(PATH, content=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["request_counts"]["processing"] == 1000
    path = rig.settings.files_folder / "batches" / answer.json()["id"] / "input.jsonl"
    checked = check_input(path, "/v1/messages", MAX_MESSAGES, is_one_model=False)
    assert (checked.total, checked.errors) == (1000, [])
    lines = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    assert [line["custom_id"] for line in lines] == [one["custom_id"] for one in requests]
    assert [line["body"] for line in lines] == [one["params"] for one in requests]


@pytest.mark.parametrize(
    ("requests", "param"),
    [
        ([], "requests"),
        ([request("a b")], "requests[0].custom_id"),
        ([request(""), request("")], "requests[0].custom_id"),
        ([request("a"), request("x" * 65)], "requests[1].custom_id"),
        ([request("a"), request("b"), request("a")], "requests[2].custom_id"),
        ([request("a"), {"custom_id": "b"}], "requests[1]"),
        ([request("a", params=[])], "requests[0].params"),
        ([request("a", params=None)], "requests[0].params"),
        ([request(1)], "requests[0]"),
    ],
)
def test_a_wrong_request_is_named_and_nothing_is_kept(
    rig: Rig, requests: list[Any], param: str
) -> None:
    answer = create(rig, *requests)
    assert answer.status_code == 400
    check_anthropic_error(answer.json())
    assert answer.json()["error"]["details"]["param"] == param
    assert left_on_disk(rig) == set()


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'{"requests": [', b'{"requests": 1}'])
def test_a_body_that_is_no_batch_is_refused(rig: Rig, content: bytes) -> None:
    answer = rig.http.post(PATH, content=content)
    assert answer.status_code == 400
    check_anthropic_error(answer.json())
    assert left_on_disk(rig) == set()


def test_more_requests_than_allowed_are_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.dialects.anthropic.batches.receiving, "MAX_MESSAGES", 2)
    assert create(rig, *map(request, "ab")).status_code == 200
    answer = create(rig, *map(request, "abc"))
    assert (answer.status_code, "more than 2" in answer.text) == (400, True)


def test_a_body_beyond_the_limit_gets_413(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.dialects.anthropic.batches.receiving, "MAX_BODY_BYTES", 10_000)
    body = json.dumps({"requests": [request(f"r{n}") for n in range(1000)]}).encode()
    pieces = (body[at : at + 5000] for at in range(0, len(body), 5000))
    for content in (body, pieces):
        answer = rig.http.post(PATH, content=content)
        assert answer.status_code == 413
        assert answer.json()["error"]["type"] == "request_too_large"
    assert left_on_disk(rig) == set()


def test_one_request_has_the_limit_of_a_body(rig: Rig) -> None:
    limit = rig.settings.max_body_bytes
    answer = create(rig, request("a"), request("b", params={"text": "x" * limit}))
    assert answer.status_code == 400
    assert "after requests[0]" in answer.json()["error"]["message"]


def test_a_body_far_beyond_the_limit_of_others_is_not_held_in_memory(rig: Rig) -> None:
    """The API runs in this process: its own copy of the body would show in its footprint."""
    head, element = b'{"requests":[', json.dumps(request("r%07d", x="y" * 20_000)).encode()

    def pieces() -> Any:
        yield head
        for number in range(3000):  # 60 MB
            yield (b"," if number else b"") + element % number
        yield b"]}"

    before = peak_bytes()
    answer = rig.http.post(PATH, content=pieces())
    assert answer.status_code == 200, answer.text
    assert answer.json()["request_counts"]["processing"] == 3000
    assert peak_bytes() - before < 40_000_000


def peak_bytes() -> int:
    pages = Path("/proc/self/statm")
    if not pages.exists():
        pytest.skip("only Linux tells it so")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_client_that_goes_away_leaves_nothing(rig: Rig) -> None:
    body = json.dumps({"requests": [request(f"r{n}") for n in range(20_000)]}).encode()
    with rig.connect() as client:
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body[: len(body) // 2])
        wait_until(lambda: left_on_disk(rig), "a part of the input on disk")
    wait_until(lambda: left_on_disk(rig) == set(), "the part to be removed")
    assert rig.http.get(PATH).json()["data"] == []


def test_nothing_is_kept_while_redis_is_away(tmp_path: Path) -> None:
    with private_redis(is_kept=True) as server, running_api(tmp_path, server.url) as rig:
        server.kill()
        assert create(rig, request()).status_code == 503
        assert left_on_disk(rig) == set()
        server.start()
        made = create(rig, request())
        assert made.status_code == 200
        assert [one["id"] for one in rig.http.get(PATH).json()["data"]] == [made.json()["id"]]


def test_another_callers_batch_does_not_exist(tmp_path: Path, redis_url: str) -> None:
    classes = {"alice": ["batch"], "bob": ["batch"], "carol": ["interactive"]}
    keys = [{"name": k, "sha256": hash_of(k), "classes": v} for k, v in classes.items()]
    (tmp_path / "keys.json").write_text(json.dumps({"keys": keys}))
    with running_api(tmp_path, redis_url, keys_file=tmp_path / "keys.json") as rig:

        def ask(key: str, method: str, path: str = "", **fields: Any) -> httpx.Response:
            headers = {"X-Api-Key": key}
            return rig.http.request(method, PATH + path, headers=headers, **fields)

        body = {"requests": [request()]}
        assert ask("carol", "POST", json=body).status_code == 403
        alices = ask("alice", "POST", json=body).json()["id"]
        calls = [("GET", ""), ("GET", "/results"), ("DELETE", ""), ("POST", "/cancel")]
        for method, path in calls:
            assert ask("bob", method, f"/{alices}{path}").status_code == 404
        assert ask("bob", "GET").json()["data"] == []
        assert [one["id"] for one in ask("alice", "GET").json()["data"]] == [alices]


def test_a_batch_that_has_not_ended_has_no_results_and_is_not_deleted(rig: Rig) -> None:
    path = f"{PATH}/{create(rig, request()).json()['id']}"
    for answer in (rig.http.get(f"{path}/results"), rig.http.delete(path)):
        assert answer.status_code == 400
        assert "has not ended" in answer.json()["error"]["message"]
    assert rig.http.get(path).json()["processing_status"] == "in_progress"
    first = rig.http.post(f"{path}/cancel").json()
    assert first["processing_status"] == "canceling"
    assert rig.http.post(f"{path}/cancel").json() == first


@pytest.mark.parametrize("batch_id", ["x", "msgbatch_" + "0" * 32, "batch_" + "0" * 32])
def test_an_unknown_batch_is_not_found(rig: Rig, batch_id: str) -> None:
    path = f"{PATH}/{batch_id}"
    answers = [rig.http.get(path), rig.http.get(f"{path}/results"), rig.http.delete(path)]
    for answer in [*answers, rig.http.post(f"{path}/cancel")]:
        assert answer.status_code == 404
        check_anthropic_error(answer.json())


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("after_id=x", "after_id"),
        ("before_id=x", "before_id"),
        ("after_id=msgbatch_1&before_id=msgbatch_2", "before_id"),
    ],
)
def test_a_wrong_page_is_refused(rig: Rig, query: str, param: str) -> None:
    answer = rig.http.get(f"{PATH}?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["param"] == param


def test_the_results_lie_where_the_request_was_sent(rig: Rig) -> None:
    """The client sends its key there."""
    batch_id = create(rig, request()).json()["id"]
    rig.http.post(f"{PATH}/{batch_id}/cancel")
    key = f"mgs:batch:{batch_id}"
    record = json.loads(rig.redis.hget(key, "record"))
    ended = {**record, "status": "cancelled", "cancelled_at": 1_800_000_000}
    rig.redis.hset(key, mapping={"record": json.dumps(ended), "status": "cancelled"})
    headers = {"Host": "localhost:1234"}
    answer = rig.http.get(f"{PATH}/{batch_id}", headers=headers).json()
    assert answer["processing_status"] == "ended"
    assert answer["results_url"] == f"http://localhost:1234{PATH}/{batch_id}/results"
    assert answer["ended_at"] == "2027-01-15T08:00:00Z"
