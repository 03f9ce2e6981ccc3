"""llama-server's routes of several models, against a real supervisor."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.helpers.server import Server, make_server
from tests.helpers.waiting import wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = make_server(MGS_FAKE_ENGINE="true")
    try:
        found.start_all()
        yield found
    finally:
        assert not found.stop()


def states(server: Server) -> dict[str, str]:
    return {model: entry["state"] for model, entry in server.processes_by_id().items()}


def post(server: Server, path: str, model: str) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json={"model": model}, timeout=60)


def test_a_model_is_loaded_and_unloaded_by_its_name_and_listeners_are_told(server: Server) -> None:
    seen: list[str] = []
    with httpx.stream("GET", f"{server.url}/models/sse", timeout=30) as stream:
        assert post(server, "/models/load", "fake").json() == {"success": True}
        wait_until(lambda: states(server).get("fake") == "ready", "the model is ready")
        assert post(server, "/models/load", "fake").json() == {"success": True}
        assert post(server, "/models/unload", "fake").json() == {"success": True}
        for line in stream.iter_lines():
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                assert (event["model"], event["event"]) == ("fake", "model_status")
                seen.append(event["data"]["status"]["value"])
                if seen[-1] == "unloaded":
                    break
    assert seen[0] in ("loading", "loaded")
    assert states(server) == {}


def test_unknown_models_are_named(server: Server) -> None:
    for path in ("/models/load", "/models/unload"):
        answer = post(server, path, "nope")
        assert (answer.status_code, answer.json()["error"]["param"]) == (404, "model")
    answer = httpx.delete(f"{server.url}/models", params={"model": "nope"}, timeout=30)
    assert answer.status_code == 404


def test_a_download_is_refused_by_the_name_of_its_field(server: Server) -> None:
    answer = post(server, "/models", "no repository")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
