"""What belongs to one key is not there for another, on every route with an id in its path."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.routing import APIRoute

from api.app import ROUTERS
from tests.helpers.waiting import wait_until
from tests.integration.test_key_limits import BACKGROUND, Locked, locked

__all__ = ["locked"]

_NUM_TRIES = 200
_PARAMETER = re.compile(r"{(\w+)(?::path)?}")
_NOT_OWNED = {"model", "model_name", "build", "name"}
"""Parameters that name nobody's property: models, and the page's files."""


def _routes() -> list[APIRoute]:
    routes = [route for router in ROUTERS for route in router.routes]
    return [route for route in routes if isinstance(route, APIRoute)]


def _owned() -> list[tuple[str, str]]:
    """Method and path of each route with the id of something that has an owner."""
    return [
        (method, route.path)
        for route in _routes()
        if set(_PARAMETER.findall(route.path)) - _NOT_OWNED
        for method in sorted(route.methods - {"HEAD"})
    ]


def _job(locked: Locked) -> str:
    return str(locked.post("alice", BACKGROUND).json()["id"])


def _response(locked: Locked) -> str:
    body = {"input": "hi", "background": True}
    return str(locked.post("alice", body, "/v1/responses").json()["id"])


def _file(locked: Locked) -> str:
    body = {"messages": [{"role": "user", "content": "hi"}], "model": "fake"}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    made = locked.rig.http.post(
        "/v1/files",
        headers={"X-Api-Key": locked.keys["alice"]},
        files={"file": ("lines.jsonl", json.dumps(line) + "\n")},
        data={"purpose": "batch"},
    )
    return str(made.json()["id"])


def _upload(locked: Locked) -> str:
    body = {"bytes": 3, "filename": "a.jsonl", "mime_type": "text/plain", "purpose": "batch"}
    return str(locked.post("alice", body, "/v1/uploads").json()["id"])


def _batch(locked: Locked) -> str:
    endpoint = "/v1/chat/completions"
    body = {"input_file_id": _file(locked), "endpoint": endpoint, "completion_window": "24h"}
    return str(locked.post("alice", body, "/v1/batches").json()["id"])


def _message_batch(locked: Locked) -> str:
    message = {"role": "user", "content": "hi"}
    params = {"model": "fake", "max_tokens": 3, "messages": [message]}
    body = {"requests": [{"custom_id": "a", "params": params}]}
    return str(locked.post("alice", body, "/v1/messages/batches").json()["id"])


def _endpoint(locked: Locked) -> str:
    body = {"name": "a", "url": "https://example.com/hook", "event_types": ["batch.completed"]}
    return str(locked.post("alice", body, "/v1/webhook_endpoints").json()["id"])


_MAKERS: dict[str, Callable[[Locked], str]] = {
    "/v1/jobs/{job_id}": _job,
    "/v1/responses/{response_id}": _response,
    "/v1/files/{file_id}": _file,
    "/v1/uploads/{upload_id}": _upload,
    "/v1/batches/{batch_id}": _batch,
    "/v1/messages/batches/{batch_id}": _message_batch,
    "/v1/webhook_endpoints/{endpoint_id}": _endpoint,
}
"""How a caller gets what is shown under such a path. A new kind of path needs a line here."""

_BODIES: dict[str, Any] = {
    "/v1/jobs/{job_id}": {"priority": 1},
    "/v1/uploads/{upload_id}/complete": {"part_ids": ["a"]},
    "/v1/webhook_endpoints/{endpoint_id}/test": {"event_type": "batch.completed"},
}
"""What is sent: a wrong body could be refused before anybody looks whose it is."""

_NOT_YET = ("/results", "/events")
"""What even the owner does not get of something that has not ended, or not without waiting."""


def _subject(path: str) -> str:
    """The path up to its first parameter."""
    return path[: path.index("}") + 1]


@pytest.fixture
def of_alice(locked: Locked) -> dict[str, str]:
    """The id of one of everything that has an owner, by its path."""
    locked.add("alice")
    locked.add("mallory")
    locked.add("admin", is_manager=True)
    wanted = {_subject(path) for _, path in _owned()}
    unknown = wanted - set(_MAKERS)
    assert not unknown, f"say in _MAKERS how one gets {unknown}"
    return {path: make(locked) for path, make in _MAKERS.items() if path in wanted}


def _ask(locked: Locked, name: str, method: str, path: str, ids: dict[str, str]):
    headers = {"X-Api-Key": locked.keys[name]}
    body = None if method in ("GET", "DELETE") else _BODIES.get(path, {})
    url = path.replace(_PARAMETER.findall(path)[0].join("{}"), ids[_subject(path)], 1)
    url = _PARAMETER.sub("evt_00000000", url)
    return locked.rig.http.request(method, url, headers=headers, json=body)


def test_a_stranger_finds_nothing_of_anybody_s(locked: Locked, of_alice: dict[str, str]) -> None:
    """And cannot tell what exists from what does not."""
    none = {path: re.sub(r"[0-9a-f]{6}$", "0badc0", found) for path, found in of_alice.items()}
    assert not set(none.values()) & set(of_alice.values())
    routes = _owned()
    assert len(routes) >= 7
    for method, path in itertools.islice(itertools.cycle(routes), _NUM_TRIES):
        found = _ask(locked, "mallory", method, path, of_alice)
        assert found.status_code == 404, (method, path, found.text)
        unknown = _ask(locked, "mallory", method, path, none)
        assert unknown.status_code == 404, (method, path, unknown.text)
        texts = _without_ids(found.text, of_alice), _without_ids(unknown.text, none)
        assert texts[0] == texts[1], (method, path)
    for method, path in routes:  # nothing of it was done, and a manager sees it too
        if method == "GET" and not path.endswith(_NOT_YET):
            for name in ("alice", "admin"):
                answer = _ask(locked, name, method, path, of_alice)
                assert answer.status_code == 200, (name, path, answer.text)
    for path in ("/v1/jobs/{job_id}", "/v1/responses/{response_id}"):
        assert locked.rig.record(of_alice[path]).cancel == ""


def _without_ids(text: str, ids: dict[str, str]) -> str:
    for found in ids.values():
        text = text.replace(found, "ID")
    return text


def test_no_list_shows_what_is_another_s(locked: Locked, of_alice: dict[str, str]) -> None:
    shown = 0
    for route in _routes():
        is_list = "GET" in route.methods and "{" not in route.path
        if not is_list or route.path in ("/v1/live", "/models/sse"):
            continue
        text = locked.get("mallory", route.path).text
        assert not [one for one in of_alice.values() if one in text], route.path
        mine = locked.get("alice", route.path).text
        shown += any(one in mine for one in of_alice.values())
    assert shown >= 1


def _snapshot(locked: Locked, name: str) -> dict:
    headers = {"X-Api-Key": locked.keys[name]}
    with locked.rig.http.stream("GET", "/v1/live", headers=headers) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: ") and "models" in line:
                return json.loads(line.removeprefix("data: "))
    raise AssertionError("no snapshot")


def test_the_live_feed_shows_one_s_own_jobs(locked: Locked, of_alice: dict[str, str]) -> None:
    job_id = of_alice["/v1/jobs/{job_id}"]
    for name, is_shown in (("alice", True), ("admin", True), ("mallory", False)):
        found = _snapshot(locked, name)
        assert (job_id in found["jobs"]) is is_shown
        assert (job_id in found["queues"]["0"]["order"]) is is_shown
        assert found["queues"]["0"]["waiting"] == 2, "how many wait is no secret"
        assert "owners" not in found


def test_a_response_cannot_be_continued_or_quoted(locked: Locked) -> None:
    locked.add("alice")
    locked.add("mallory")
    future = locked.rig.post_soon(
        "/v1/responses", {"input": "secret"}, X_Api_Key=locked.keys["alice"]
    )
    locked.rig.take().answer("told")
    response = future.result().json()
    wait_until(
        lambda: locked.get("alice", f"/v1/responses/{response['id']}").status_code == 200, "stored"
    )
    items = locked.get("alice", f"/v1/responses/{response['id']}/input_items").json()["data"]
    quote = [{"type": "item_reference", "id": items[0]["id"]}]
    for body in (
        {"input": "and?", "previous_response_id": response["id"], "background": True},
        {"input": quote, "background": True},
    ):
        assert locked.post("mallory", body, "/v1/responses").status_code == 400
        assert locked.post("alice", body, "/v1/responses").status_code == 200


def test_another_s_file_cannot_be_the_input_of_a_batch(
    locked: Locked, of_alice: dict[str, str]
) -> None:
    theirs = of_alice["/v1/files/{file_id}"]
    none = re.sub(r"[0-9a-f]{6}$", "0badc0", theirs)
    answers = [
        locked.post(
            "mallory",
            {
                "input_file_id": file_id,
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
            },
            "/v1/batches",
        )
        for file_id in (theirs, none)
    ]
    assert [answer.status_code // 100 for answer in answers] == [4, 4]
    assert answers[0].text.replace(theirs, "ID") == answers[1].text.replace(none, "ID")


def test_an_idempotency_key_is_one_s_own(locked: Locked) -> None:
    ids = []
    for name in ("alice", "mallory", "alice"):
        if name not in locked.keys:
            locked.add(name)
        headers = {"X_Api_Key": locked.keys[name], "Idempotency_Key": '"same"'}
        answer = locked.rig.post("/v1/chat/completions", BACKGROUND, **headers)
        assert answer.status_code == 202
        ids.append(answer.json()["id"])
    assert ids[0] == ids[2] != ids[1]
