"""A Redis that is frozen: connections stay, and nothing answers until it goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import jobs.storage.connection
from tests.helpers.private_redis import private_redis
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig, running_api

READY = "/health/ready"
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}


class FreezingRig:
    """An API whose Redis a test may freeze."""

    def __init__(self, rig: Rig, http: httpx.Client) -> None:
        self.rig = rig
        self.http = http
        self._pid = int(rig.redis.info("server")["process_id"])

    @contextmanager
    def frozen(self) -> Iterator[None]:
        os.kill(self._pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._pid, signal.SIGCONT)


@pytest.fixture
def freezing(tmp_path: Path) -> Iterator[FreezingRig]:
    with private_redis() as server, running_api(tmp_path, server.url) as rig:
        rig.load()
        rig.supervise()
        with httpx.Client(base_url=rig.url, timeout=60) as http:
            yield FreezingRig(rig, http)


def test_readiness_answers_while_everybody_else_waits(freezing: FreezingRig) -> None:
    answer = freezing.http.get(READY)
    assert (answer.status_code, answer.json()["reasons"]) == (200, [])
    with ThreadPoolExecutor(60) as threads:
        with freezing.frozen():
            others = [threads.submit(freezing.http.get, "/v1/jobs") for _ in range(20)]
            others += [threads.submit(freezing.http.get, "/v1/models") for _ in range(20)]
            asked = [threads.submit(freezing.http.get, READY) for _ in range(20)]
            answers = [future.result() for future in asked]
            assert not any(other.done() for other in others)
        for answer in answers:
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            assert answer.json() == {
                "status": "not_ready",
                "reasons": ["Redis does not answer within a second"],
            }
    assert_ready(freezing)


def assert_ready(freezing: FreezingRig) -> None:
    wait_until(lambda: freezing.http.get(READY).status_code == 200, "the API is ready again")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/chat/completions", CHAT),
        ("POST", "/v1/chat/completions", {**CHAT, "stream": True}),
        ("POST", "/v1/chat/completions", {**CHAT, "background": True}),
        ("POST", "/v1/messages", {**CHAT, "max_tokens": 5}),
        ("POST", "/v1/responses", {"input": "hi"}),
        ("GET", f"/v1/responses/resp_{'0' * 32}", None),
        ("DELETE", f"/v1/responses/resp_{'0' * 32}", None),
        ("GET", f"/v1/responses/resp_{'0' * 32}?stream=true", None),
        ("POST", "/v1/tokenize", {"content": "hi"}),
        ("POST", "/completion", {"prompt": "hi"}),
        ("GET", "/slots", None),
        ("GET", "/v1/jobs/none/events", None),
        ("POST", "/management/process/clean-up", {"timeout": 5}),
        ("POST", "/v1/internal/model/unload", {}),
    ],
)
def test_nobody_waits_without_end(
    freezing: FreezingRig,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    body: dict[str, Any] | None,
) -> None:
    monkeypatch.setattr(jobs.storage.connection, "_ANSWER_S", 0.5)
    with freezing.frozen():
        answer = freezing.http.request(method, path, json=body)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert_ready(freezing)


def test_readiness_without_redis_says_so(tmp_path: Path) -> None:
    with private_redis() as server, running_api(tmp_path, server.url) as rig:
        rig.supervise()
        server.kill()
        answer = rig.http.get(READY)
        assert answer.status_code == 503
        assert answer.json()["reasons"] == ["Redis cannot be reached"]
