"""What belongs to one key is not there for another, on every route with an id in its path."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable

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


_MAKERS: dict[str, Callable[[Locked], str]] = {"job_id": _job, "response_id": _response}
"""How a caller gets something with such an id. A new kind of id needs a line here."""


@pytest.fixture
def of_alice(locked: Locked) -> dict[str, str]:
    """One of everything that has an owner, by the names of the parameters."""
    locked.add("alice")
    locked.add("mallory")
    locked.add("admin", is_manager=True)
    wanted = {name for _, path in _owned() for name in _PARAMETER.findall(path)}
    unknown = wanted - set(_MAKERS) - _NOT_OWNED
    assert not unknown, f"say in _MAKERS how one gets {unknown}"
    return {name: make(locked) for name, make in _MAKERS.items() if name in wanted}


def _ask(locked: Locked, name: str, method: str, path: str):
    headers = {"X-Api-Key": locked.keys[name]}
    body: dict[str, str] | None = None if method in ("GET", "DELETE") else {}
    return locked.rig.http.request(method, path, headers=headers, json=body)


def _filled(path: str, ids: dict[str, str]) -> str:
    return _PARAMETER.sub(lambda match: ids[match[1]], path)


def test_a_stranger_finds_nothing_of_anybody_s(locked: Locked, of_alice: dict[str, str]) -> None:
    """And cannot tell what exists from what does not."""
    none = {name: re.sub(r"[0-9a-f]{6}$", "0badc0", of_alice[name]) for name in of_alice}
    assert not set(none.values()) & set(of_alice.values())
    routes = _owned()
    assert len(routes) >= 7
    for method, path in itertools.islice(itertools.cycle(routes), _NUM_TRIES):
        found = _ask(locked, "mallory", method, _filled(path, of_alice))
        assert found.status_code == 404, (method, path, found.text)
        unknown = _ask(locked, "mallory", method, _filled(path, none))
        assert unknown.status_code == 404, (method, path, unknown.text)
        texts = _without_ids(found.text, of_alice), _without_ids(unknown.text, none)
        assert texts[0] == texts[1], (method, path)
    for method, path in routes:  # nothing of it was done
        if method == "GET" and "events" not in path:
            answer = _ask(locked, "alice", method, _filled(path, of_alice))
            assert answer.status_code == 200, (path, answer.text)
            seen = _ask(locked, "admin", method, _filled(path, of_alice))
            assert seen.status_code == 200, (path, seen.text)
    assert locked.rig.record(of_alice["job_id"]).cancel == ""
    assert locked.rig.record(of_alice["response_id"]).cancel == ""


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
        text = _ask(locked, "mallory", "GET", route.path).text
        assert not [one for one in of_alice.values() if one in text], route.path
        mine = _ask(locked, "alice", "GET", route.path).text
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
    job_id = of_alice["job_id"]
    for name, is_shown in (("alice", True), ("admin", True), ("mallory", False)):
        found = _snapshot(locked, name)
        assert (job_id in found["jobs"]) is is_shown
        assert (job_id in found["queues"]["0"]["order"]) is is_shown
        assert found["queues"]["0"]["waiting"] == 2
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
