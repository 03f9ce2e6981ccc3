"""Requests with an idempotency key are repeated while parts of the server are killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from tests.helpers.processes import free_port
from tests.helpers.server import Server, make_server
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "Count."}], "temperature": 0}
DEADLINE_S = 60.0


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    """One server with two API processes; the second is known by its port only."""
    server = make_server(MGS_ORPHAN_S="5")
    port = free_port()
    second = Server(port, server.folder, {**server.env, "MGS_PORT": str(port)})
    try:
        server.start_all()
        second.start("web", "api")
        wait_until(second.is_ready, "the second API")
        server.load("fake-20ms")
        yield server, second
    finally:
        second.stop()
        server.stop()


def ask(servers: tuple[Server, ...], key: str, **fields: Any) -> httpx.Response:
    """The answer, after as many repetitions as a patient client needs."""
    end = time.monotonic() + DEADLINE_S
    number = 0
    while time.monotonic() < end:
        server = servers[number % len(servers)]
        number += 1
        try:
            answer = httpx.post(
                f"{server.url}{CHAT}",
                json={**BODY, **fields},
                headers={"Idempotency-Key": key},
                timeout=DEADLINE_S,
            )
        except httpx.TransportError:
            time.sleep(0.2)
            continue
        if answer.status_code not in (409, 429, 500, 502, 503):
            return answer
        time.sleep(0.2)
    raise AssertionError("no answer in time")


def job_ids(server: Server) -> list[str]:
    listed = httpx.get(f"{server.url}/v1/jobs?limit=200", timeout=20).json()["data"]
    return [job["id"] for job in listed if job["task"] == "generate"]


def redis_process(server: Server) -> psutil.Process:
    (found,) = psutil.Process(server.processes["redis"].pid).children()
    return found


def test_fifty_requests_over_two_apis_and_a_killed_redis_make_one_job(
    servers: tuple[Server, Server],
) -> None:
    first, second = servers
    with ThreadPoolExecutor(50) as threads:
        orders = [(first, second), (second, first)]
        answers = [
            threads.submit(ask, orders[number % 2], "k", max_tokens=150) for number in range(50)
        ]
        wait_until(lambda: job_ids(first), "the job")
        redis_process(first).kill()
        found = [answer.result() for answer in answers]
    assert {answer.status_code for answer in found} == {200}
    assert len({answer.content for answer in found}) == 1
    assert found[0].json()["usage"]["completion_tokens"] == 150
    assert len(job_ids(first)) == 1


def test_a_stream_is_told_from_its_beginning_after_its_api_was_killed(
    servers: tuple[Server, Server],
) -> None:
    """For longer than its supervisor waits for a dead API process."""
    first, second = servers
    ask_and_kill(first, "k", max_tokens=450)
    whole = ask((second,), "k", max_tokens=450, stream=True)
    assert whole.headers["idempotency-replayed"] == "true"
    assert whole.text.rstrip().endswith("data: [DONE]")
    events = [line.removeprefix("data: ") for line in whole.text.splitlines()]
    pieces = [json.loads(event) for event in events if event.startswith("{")]
    choices = [choice for piece in pieces for choice in piece["choices"]]
    assert sum(len(choice["delta"].get("content") or "") for choice in choices) == 450
    assert choices[-1]["finish_reason"] == "length"
    assert ask((second,), "k", max_tokens=450, stream=True).content == whole.content
    assert len(job_ids(second)) == 1


def ask_and_kill(server: Server, key: str, **fields: Any) -> None:
    """Begin a stream, and kill the API process that sends it."""
    body, headers = {**BODY, **fields, "stream": True}, {"Idempotency-Key": key}
    with contextlib.suppress(httpx.TransportError):
        url = f"{server.url}{CHAT}"
        with httpx.stream("POST", url, json=body, headers=headers, timeout=DEADLINE_S) as answer:
            for _ in answer.iter_lines():
                os.kill(server.processes["web"].pid, signal.SIGKILL)
