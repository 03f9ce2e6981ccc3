"""Two models of two formats, many streams, disconnects, purges: through the public door."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest
from openai import OpenAI

from jobs.embedded_redis.binary import find_redis_cli
from tests.helpers.sdk import openai_client
from tests.helpers.server import ROOT, Server
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

COUNT = "Count from 1 to 100."


def stream_text(client: OpenAI, text: str, max_tokens: int = 60) -> str:
    chunks = client.chat.completions.create(
        model="dummy",
        messages=[{"role": "user", "content": text}],
        temperature=0,
        max_tokens=max_tokens,
        stream=True,
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def open_stream(server: Server, model: str, max_tokens: int = 500) -> socket.socket:
    """A raw connection that has received the first content chunk of a long stream."""
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": COUNT}],
            "stream": True,
            "temperature": 0,
            "max_tokens": max_tokens,
            "ignore_eos": True,
        }
    )
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        f"Content-Type: application/json\r\nX-Model-Id: {model}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall((head + body).encode())
    received = b""
    while received.count(b"data:") < 2:
        received += connection.recv(65536)
    assert b"200 OK" in received
    return connection


def running_jobs(server: Server, model_id: str) -> dict[str, Any]:
    queues: dict[str, Any] = server.processes_by_id()[model_id]["current_queue"]["queues"]
    return queues


def submit_background(server: Server, model_id: str, **fields: Any) -> str:
    body = {"background": True, "max_tokens": 2000, "ignore_eos": True, **fields}
    answer = server.chat(COUNT, model_id, **body)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/v1/jobs/{answer.json()['id']}"
    return str(answer.json()["id"])


def status_of(server: Server, job_id: str) -> str:
    return str(httpx.get(f"{server.url}/v1/jobs/{job_id}").json()["status"])


def test_five_streams_on_each_of_two_models_while_a_third_loads(server: Server) -> None:
    server.load("demo", "0")
    server.load("demo.gguf", "1")
    with ThreadPoolExecutor(11) as pool:
        texts = {
            model_id: [
                pool.submit(stream_text, openai_client(server.url, model_id), COUNT)
                for _ in range(5)
            ]
            for model_id in ("0", "1")
        }
        pool.submit(server.load, "demo.gguf", "2").result()
        found = {text.result() for futures in texts.values() for text in futures}
    assert len(found) == 1, "both engines and every stream say the same"
    assert stream_text(openai_client(server.url, "2"), COUNT) in found


@pytest.mark.parametrize("model", ["demo", "demo.gguf"])
def test_greedy_answers_are_the_same_alone_and_in_a_batch(server: Server, model: str) -> None:
    server.load(model)
    prompts = ["Hello!", "What is 3 + 4?", "Count from 1 to 9.", "Spell hello.", "Who are you?"]
    client = openai_client(server.url)
    alone = [stream_text(client, prompt) for prompt in prompts]
    with ThreadPoolExecutor(len(prompts)) as pool:
        together = list(pool.map(lambda prompt: stream_text(client, prompt), prompts))
    assert together == alone
    assert all(alone)


def test_the_official_client_gets_whole_and_streamed_answers(server: Server) -> None:
    server.load("demo.gguf")
    client = openai_client(server.url)
    whole = client.chat.completions.create(
        model="demo.gguf", messages=[{"role": "user", "content": "Hello!"}], temperature=0
    )
    assert whole.choices[0].message.role == "assistant"
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert whole.choices[0].message.content == stream_text(client, "Hello!")
    text = client.completions.create(model="dummy", prompt="Your prompt here", max_tokens=5)
    assert text.choices[0].finish_reason in ("length", "stop")
    first, *others = client.models.list()
    assert (first.id, first.model_extra["state"]) == ("demo.gguf", "ready")
    assert {model.model_extra["state"] for model in others} == {"unloaded"}


@pytest.mark.parametrize("model", ["fake-20ms", "demo", "demo.gguf"])
def test_a_client_that_leaves_frees_its_slot(server: Server, model: str) -> None:
    server.load(model)
    # The demo model in GGUF makes thousands of tokens a second: it must still run when we leave.
    connection = open_stream(server, "0", max_tokens=1900)
    connection.close()
    listed = httpx.get(f"{server.url}/v1/jobs", params={"limit": 1}).json()["data"]
    job_id = listed[0]["id"]
    wait_until(lambda: not running_jobs(server, "0"), "slot free after the client left")
    assert status_of(server, job_id) == "cancelled"


def test_a_client_that_leaves_the_queue_takes_its_job_along(server: Server) -> None:
    server.load("fake-20ms", slots=1)
    running = open_stream(server, "0", max_tokens=4000)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{server.url}/v1/completions",
            json={"prompt": "I will not wait", "max_tokens": 4000},
            timeout=1.0,
        )
    wait_until(lambda: len(running_jobs(server, "0")) == 1, "the impatient client's job gone")
    jobs = httpx.get(f"{server.url}/v1/jobs", params={"status": "cancelled"}).json()["data"]
    assert any(job["id"].startswith("cmpl-") for job in jobs)
    running.close()


def test_clean_up_removes_exactly_the_old_jobs(server: Server) -> None:
    server.load("fake-20ms", slots=1)
    old = [submit_background(server, "0") for _ in range(3)]
    wait_until(lambda: status_of(server, old[0]) == "running", "the first job runs")
    created = httpx.get(f"{server.url}/v1/jobs/{old[-1]}").json()["created_at"]
    wait_until(lambda: time.time() > created + 2.0, "two seconds of age")
    young = submit_background(server, "0")
    answer = server.post("/management/process/clean-up", {"timeout": 1})
    assert answer.json()["process_clean_up"] == "success"
    wait_until(lambda: [status_of(server, job) for job in old] == ["cancelled"] * 3, "old gone")
    wait_until(lambda: status_of(server, young) == "running", "the young one runs")
    server.post("/management/process/clean-up", {"timeout": 0})
    wait_until(lambda: status_of(server, young) == "cancelled", "all gone")


def test_unload_gives_the_memory_back(server: Server) -> None:
    server.load("demo.gguf")
    pid = server.processes_by_id()["0"]["process_id"]
    assert psutil.pid_exists(pid)
    server.unload()
    assert not psutil.pid_exists(pid)
    assert server.chat("Hello!").status_code == 404
    server.load("demo.gguf")
    assert server.chat("Hello!").status_code == 200


def test_token_count_does_not_wait_behind_generations(server: Server) -> None:
    server.load("fake-20ms", slots=1)
    connection = open_stream(server, "0", max_tokens=4000)
    answer = server.post("/v1/internal/token-count", {"prompt": "abc"})
    assert answer.json() == {"length": 3}
    assert len(running_jobs(server, "0")) == 1
    connection.close()


def test_rq_info_and_redis_cli_show_the_queue(server: Server) -> None:
    server.load("fake-20ms", slots=1)
    jobs = [submit_background(server, "0") for _ in range(3)]
    wait_until(lambda: status_of(server, jobs[0]) == "running", "the first job runs")
    info = subprocess.check_output(
        [sys.executable, "-m", "rq.cli", "info", "-u", server.redis_url], text=True, cwd=ROOT
    )
    gen_line = next(line for line in info.splitlines() if line.startswith("mgs-gen-0"))
    assert "2" in gen_line.split("|")[1]
    assert " busy" in next(line for line in info.splitlines() if line.startswith("0.gen."))
    cli = find_redis_cli()
    assert cli is not None
    command = [str(cli), "-s", server.redis_url[len("unix://") :].split("?")[0]]
    waiting = subprocess.check_output(
        [*command, "lrange", "rq:queue:mgs-gen-0", "0", "-1"], text=True
    )
    assert waiting.split() == jobs[1:]
    meta = subprocess.check_output([*command, "hget", f"rq:job:{jobs[0]}", "meta"], text=True)
    assert json.loads(meta)["model"] == "fake-20ms"
    server.post("/management/process/clean-up", {"timeout": 0})


def test_a_broken_model_says_what_is_wrong_and_frees_its_id(server: Server) -> None:
    models = server.folder / "models"
    (models / "not-a-model.gguf").write_bytes(b"this is no GGUF file")
    (models / "empty").mkdir()
    (models / "empty" / "config.json").write_text("{}")
    for name in ("not-a-model.gguf", "empty"):
        answer = server.post("/v1/internal/model/load", {"llm_model_name": name})
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "model_load_failed"
        assert len(answer.json()["detail"]) > 20
        assert server.processes_by_id() == {}
    answer = server.post("/v1/internal/model/load", {"llm_model_name": "missing"})
    assert answer.status_code == 404
    server.load("demo.gguf")
