"""Pages of other origins: none by default, those of MGS_CORS_ORIGINS as browsers want it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.api_rig import Rig, running_api

APP = "https://app.example"
CHAT = "/v1/chat/completions"
STREAM = {"messages": [{"role": "user", "content": "hi"}], "stream": True}


@pytest.fixture
def open_to_app(tmp_path: Path, redis_url: str) -> Iterator[Rig]:
    origins = f"{APP.upper()}, http://localhost:3000"
    with running_api(tmp_path, redis_url, cors_origins=origins, api_key="key") as rig:
        rig.load()
        yield rig


def preflight(rig: Rig, origin: str) -> httpx.Response:
    """What a browser asks before a POST with JSON and a key."""
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-model-id",
    }
    return rig.http.options(CHAT, headers=headers)


def allowed_origin(answer: httpx.Response) -> str | None:
    return answer.headers.get("access-control-allow-origin")


@pytest.mark.parametrize("origin", [APP, "http://localhost:3000"])
def test_a_listed_origin_may_ask_with_headers_of_its_own(open_to_app: Rig, origin: str) -> None:
    answer = preflight(open_to_app, origin)
    assert (answer.status_code, allowed_origin(answer)) == (200, origin)
    assert "POST" in answer.headers["access-control-allow-methods"]
    names = answer.headers["access-control-allow-headers"].lower()
    assert all(name in names for name in ("authorization", "content-type", "x-model-id"))


def test_its_pages_read_streams_headers_and_errors(open_to_app: Rig) -> None:
    future = open_to_app.post_soon(CHAT, STREAM, Origin=APP, Authorization="Bearer key")
    open_to_app.take().answer("Hello!")
    answer = future.result()
    assert (answer.status_code, allowed_origin(answer)) == (200, APP)
    assert answer.text.endswith("data: [DONE]\n\n")
    assert "X-Job-Id" in answer.headers["access-control-expose-headers"]
    refused = open_to_app.post(CHAT, STREAM, Origin=APP)
    assert (refused.status_code, allowed_origin(refused)) == (401, APP)


@pytest.mark.parametrize("origin", ["https://evil.example", f"{APP}:444", "http://app.example"])
def test_other_origins_stay_outside(open_to_app: Rig, origin: str) -> None:
    refused = open_to_app.post(CHAT, STREAM, Origin=origin, Authorization="Bearer key")
    for answer in (preflight(open_to_app, origin), refused):
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "origin_not_allowed"
        assert allowed_origin(answer) is None


def test_by_default_no_origin_is_let_in(rig: Rig) -> None:
    for origin, status in ((APP, 403), ("http://localhost:3000", 405)):
        answer = preflight(rig, origin)
        assert (answer.status_code, allowed_origin(answer)) == (status, None)


@pytest.mark.parametrize("origin", [APP, "null"])
def test_a_star_lets_all_origins_in(tmp_path: Path, redis_url: str, origin: str) -> None:
    with running_api(tmp_path, redis_url, cors_origins="*") as rig:
        assert allowed_origin(preflight(rig, origin)) == "*"
        answer = rig.http.get("/v1/models", headers={"Origin": origin})
        assert (answer.status_code, allowed_origin(answer)) == (200, "*")
        foreign = rig.http.get("/v1/models", headers={"Host": "evil.example", "Origin": origin})
        assert foreign.status_code == 421
