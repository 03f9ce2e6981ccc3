"""Real kills: a dead process is a pause for its clients, and loses no job."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import psutil
import pytest

from tests.helpers.server import Server
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

COUNT = "Count from 1 to 100."


def stream_body(**fields: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": COUNT}],
        "stream": True,
        "max_tokens": 200,
        "seed": 7,
        "temperature": 0,
        **fields,
    }


def frames(server: Server, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The stream's JSON frames; the text ends with [DONE] or this fails."""
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            if line == "data: [DONE]":
                return
            if line.startswith("data: "):
                yield json.loads(line[6:])
    pytest.fail("the stream ended without [DONE]")


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)


def worker_pid(server: Server) -> int:
    return int(server.processes_by_id()["0"]["process_id"])


def stream_with_a_kill(server: Server, body: dict[str, Any], after: int) -> str:
    """The text of a stream whose worker is killed after ``after`` chunks."""
    chunks = []
    for chunk in frames(server, body):
        assert "error" not in chunk, chunk
        chunks.append(chunk)
        if len(chunks) == after:
            os.kill(worker_pid(server), signal.SIGKILL)
    assert chunks[-1]["choices"][0]["finish_reason"] in ("length", "stop")
    assert len({chunk["id"] for chunk in chunks}) == 1
    return text_of(chunks)


@pytest.mark.parametrize("model", ["demo", "demo.gguf", "fake-5ms"])
@pytest.mark.parametrize("temperature", [0, 0.7])
def test_a_stream_goes_on_identically_when_its_worker_is_killed(
    own_server: Server, model: str, temperature: float
) -> None:
    own_server.load(model)
    body = stream_body(temperature=temperature, ignore_eos=True)
    undisturbed = text_of(list(frames(own_server, body)))
    assert stream_with_a_kill(own_server, body, after=20) == undisturbed


def test_a_whole_answer_survives_its_worker_too(own_server: Server) -> None:
    own_server.load("fake-20ms")
    body = stream_body(stream=False, max_tokens=100)
    undisturbed = own_server.post("/v1/chat/completions", body).json()["choices"]
    job = own_server.post("/v1/chat/completions", {**body, "background": True}).json()["id"]
    show = f"{own_server.url}/v1/jobs/{job}"
    wait_until(lambda: httpx.get(show).json()["status"] == "running", "the job runs")
    os.kill(worker_pid(own_server), signal.SIGKILL)
    wait_until(lambda: httpx.get(show).json()["status"] == "finished", "the job finishes")
    assert httpx.get(show).json()["result"]["choices"] == undisturbed


def test_a_request_may_ask_to_fail_with_its_worker(own_server: Server) -> None:
    own_server.load("fake-20ms")
    seen = []
    body = stream_body(max_tokens=1000, on_worker_loss="fail")
    with httpx.stream(
        "POST", f"{own_server.url}/v1/chat/completions", json=body, timeout=60
    ) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: "):
                continue
            seen.append(line)
            if len(seen) == 10:
                os.kill(worker_pid(own_server), signal.SIGKILL)
    error = next(json.loads(line[6:])["error"] for line in seen if '"error"' in line)
    assert error["code"] == "worker_lost"


def test_events_of_a_job_are_read_on_across_a_killed_api(own_server: Server) -> None:
    own_server.load("fake-20ms")
    body = stream_body(stream=False, max_tokens=200, background=True)
    job = own_server.post("/v1/chat/completions", body).json()["id"]
    url = f"{own_server.url}/v1/jobs/{job}/events"
    seen: list[tuple[str, dict[str, Any]]] = []
    with contextlib.suppress(httpx.TransportError):
        for event in sse(url):
            seen.append(event)
            if len(seen) == 20:
                own_server.processes["web"].kill()
    assert seen[-1][1]["kind"] != "finished"
    own_server.processes["web"].wait()
    own_server.start("web", "api")
    wait_until(own_server.is_ready, "the API is back")
    seen += list(sse(url, last_event_id=seen[-1][0]))
    assert [event["seq"] for _, event in seen] == list(range(1, len(seen) + 1))
    assert seen[-1][1]["kind"] == "finished"
    assert sum(len(event.get("token_ids", [])) for _, event in seen) == 200


def sse(url: str, last_event_id: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    with httpx.stream("GET", url, headers=headers, timeout=60) as answer:
        event_id = ""
        for line in answer.iter_lines():
            if line.startswith("id: "):
                event_id = line[4:]
            elif line.startswith("data: "):
                yield event_id, json.loads(line[6:])


def test_a_stream_survives_a_killed_redis(own_server: Server) -> None:
    own_server.load("fake-20ms")
    body = stream_body(max_tokens=200)
    undisturbed = text_of(list(frames(own_server, body)))
    chunks = []
    for chunk in frames(own_server, body):
        assert "error" not in chunk, chunk
        chunks.append(chunk)
        if len(chunks) == 20:
            launcher = psutil.Process(own_server.processes["redis"].pid)
            next(c for c in launcher.children() if c.name().endswith("-server")).kill()
    assert text_of(chunks) == undisturbed


def test_after_a_kill_of_everything_models_and_waiting_jobs_come_back(own_server: Server) -> None:
    own_server.load("fake-20ms", slots=1)
    body = stream_body(stream=False, max_tokens=100, background=True)
    jobs = [own_server.post("/v1/chat/completions", body).json()["id"] for _ in range(4)]
    show = f"{own_server.url}/v1/jobs/{jobs[0]}"
    wait_until(lambda: httpx.get(show).json()["status"] == "running", "the first job runs")
    family = [psutil.Process(p.pid) for p in own_server.processes.values()]
    family += [child for process in family for child in process.children(recursive=True)]
    # The append-only file is written once a second: what is older than that is on disk.
    written = time.monotonic() + 1.5
    wait_until(lambda: time.monotonic() > written, "everything is on disk")
    for process in family:
        process.kill()
    psutil.wait_procs(family, timeout=10)
    for popen in own_server.processes.values():
        popen.wait()
    own_server.start_all()
    wait_until(lambda: "0" in own_server.processes_by_id(), "the model is wanted again")
    for job in jobs:
        status = f"{own_server.url}/v1/jobs/{job}"
        wait_until(partial(_is_finished, status), job, 30)


def _is_finished(url: str) -> bool:
    return bool(httpx.get(url).json()["status"] == "finished")
