"""Keys, Host and Origin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from api.app import ROUTERS
from tests.integration.api_rig import Rig, running_api


@pytest.fixture
def locked(tmp_path: Path, redis_url: str) -> Iterator[Rig]:
    keys = {"api_key": "user-key", "management_key": "manager-key"}
    with running_api(tmp_path, redis_url, **keys, allowed_hosts="mac.local") as rig:
        yield rig


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic user-key"},
        {"X-Api-Key": "user-key2"},
        {"X-Api-Key": "x" * 5000},
        {"Authorization": "Bearer kéy".encode().decode("latin-1")},
    ],
)
def test_without_the_key_every_route_but_health_is_a_401(
    locked: Rig, headers: dict[str, str]
) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    for path in ("/v1/models", "/management/processes", "/openapi.json", "/health/ready", "/nope"):
        answer = locked.http.get(path, headers=raw)
        assert answer.status_code == 401, path
        assert answer.json()["error"]["code"] == "invalid_api_key"
    assert locked.http.get("/health", headers=raw).status_code == 200


@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key"])
def test_the_key_opens_the_api_but_not_its_management(locked: Rig, name: str) -> None:
    prefix = "Bearer " if name == "Authorization" else ""
    user, manager = {name: f"{prefix}user-key"}, {name: f"{prefix}manager-key"}
    assert locked.http.get("/v1/models", headers=user).status_code == 200
    assert locked.http.get("/management/processes", headers=user).status_code == 403
    load = locked.http.post("/v1/internal/model/load", headers=user, json={})
    assert load.status_code == 403
    assert locked.http.get("/management/processes", headers=manager).status_code == 200
    assert locked.http.get("/v1/models", headers=manager).status_code == 200


MANAGEMENT = {
    ("POST", "/v1/internal/model/load"),
    ("POST", "/v1/internal/model/unload"),
    ("POST", "/v1/internal/model/pull"),
    ("POST", "/v1/internal/model/delete"),
    ("PATCH", "/v1/internal/model"),
    ("POST", "/models"),
    ("DELETE", "/models"),
    ("POST", "/models/load"),
    ("POST", "/models/unload"),
    ("POST", "/v1/internal/model/cache_limit"),
    ("POST", "/v1/internal/stop-generation"),
    ("GET", "/management/processes"),
    ("POST", "/management/process/clean-up"),
    ("GET", "/management/queues"),
    ("POST", "/management/queues/{model:path}/hold"),
    ("POST", "/management/queues/{model:path}/drain"),
    ("POST", "/management/queues/{model:path}/resume"),
    ("GET", "/management/debug/latest"),
    ("POST", "/api/pull"),
    ("DELETE", "/api/delete"),
}


def test_no_route_lacks_the_key_that_it_needs(locked: Rig) -> None:
    """Routes that are not in the description are asked too."""
    needing = set()
    routes = [route for router in ROUTERS for route in router.routes]
    assert len(routes) > 40
    for route in routes:
        assert isinstance(route, APIRoute)
        for method in route.methods - {"HEAD"}:
            path = route.path.replace("{", "").replace("}", "")
            headers = {"X-Api-Key": "user-key"}
            # A stream without end is among them: only an error's body is read.
            with locked.http.stream(method, path, headers=headers, json={}) as answer:
                if answer.status_code == 403:
                    assert b'"management_key_required"' in answer.read()
                    needing.add((method, route.path))
    assert needing == MANAGEMENT


def test_the_key_is_not_read_from_the_query(locked: Rig) -> None:
    assert locked.http.get("/v1/models?api_key=user-key").status_code == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:4000", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:4000", 200),
        ("mac.local", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("10.0.0.1", 421),
        ("[", 421),
        ("", 421),
    ],
)
def test_only_our_own_host_names_are_served(locked: Rig, host: str, status: int) -> None:
    headers = {"Host": host, "X-Api-Key": "user-key"}
    assert locked.http.get("/v1/models", headers=headers).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", 200),
        ("http://127.0.0.1:4000", 200),
        ("https://evil.example", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_other_sites_pages_are_refused(rig: Rig, origin: str, status: int) -> None:
    answer = rig.http.get("/v1/models", headers={"Origin": origin})
    assert answer.status_code == status
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_server_does_not_say_what_it_is(rig: Rig) -> None:
    assert "server" not in rig.http.get("/health").headers
