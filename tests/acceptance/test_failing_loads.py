"""Loads that fail, and models that change on disk: nothing stays of them, and the id is free."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis

from tests.gguf_bytes import gguf_bytes
from tests.helpers.server import ROOT, Server
from tests.helpers.waiting import wait_until

pytestmark = [pytest.mark.timeout(300), pytest.mark.real_engine, pytest.mark.slow]

DEMO, DEMO_GGUF = ROOT / "models" / "demo", ROOT / "models" / "demo.gguf"
LOAD = "/v1/internal/model/load"
# What is asked for, the status of the answer and a word of its reason.
FAILING: list[tuple[dict[str, Any], int, str]] = [
    ({"llm_model_name": "cut.gguf"}, 400, "cut.gguf"),
    ({"llm_model_name": "cogvlm.gguf"}, 400, "cogvlm"),
    ({"llm_model_name": "hollow"}, 400, "weights"),
    ({"llm_model_name": "prompts"}, 400, "prompts"),
    ({"llm_model_name": "demo.gguf", "adapter_name": "none"}, 404, "adapter"),
    ({"llm_model_name": "demo.gguf", "kv_bits": 4, "draft_model": "cut.gguf"}, 400, "cut.gguf"),
    ({"llm_model_name": "demo", "draft_model": "hollow"}, 400, "weights"),
]


def write_broken(models: Path) -> None:
    (models / "cut.gguf").write_bytes(DEMO_GGUF.read_bytes()[:200_000])
    (models / "cogvlm.gguf").write_bytes(gguf_bytes({"general.architecture": "cogvlm"}))
    shutil.copytree(DEMO, models / "hollow")
    (models / "hollow" / "model.safetensors").unlink()
    shutil.copytree(DEMO, models / "prompts")
    (models / "prompts" / "config_sentence_transformers.json").write_text('{"prompts": [1]}')


def traces(server: Server) -> dict[str, Any]:
    """What could stay: lasting keys, processes, open files, files of the state folder."""
    with Redis.from_url(server.redis_url, decode_responses=True) as redis:
        lasting = sorted(key for key in redis.scan_iter() if redis.ttl(key) == -1)
    parents = {name: psutil.Process(one.pid) for name, one in server.processes.items()}
    return {
        "keys": lasting,
        "processes": [len(one.children(recursive=True)) for one in parents.values()],
        "files": parents["workers"].num_fds() - num_connections(server),
        "state": sorted(path.name for path in (server.folder / "state").rglob("*")),
        "models": list(server.processes_by_id()),
    }


def num_connections(server: Server) -> int:
    """Of the supervisor. Two threads that ask Redis at once may leave one more in its pool."""
    return len(psutil.Process(server.processes["workers"].pid).net_connections("all"))


def settled_traces(server: Server) -> dict[str, Any]:
    """The traces once they have been the same for two seconds: a process takes time to end."""
    found, since = traces(server), time.monotonic()

    def is_still() -> bool:
        nonlocal found, since
        if (now := traces(server)) != found:
            found, since = now, time.monotonic()
        return time.monotonic() - since > 2

    wait_until(is_still, "nothing changes any more", 60)
    return found


def test_loads_that_fail_say_why_and_leave_no_trace(own_server: Server) -> None:
    server = own_server
    write_broken(server.folder / "models")
    server.load("demo.gguf")  # once, so that keys which a working model leaves are there
    server.unload()
    before: dict[str, Any] = {}
    connections = 0
    for _ in range(2):
        for body, status, words in FAILING:
            answer = server.post(LOAD, body)
            assert (answer.status_code, words in answer.text) == (status, True), answer.text
            assert server.post("/v1/completions", {"prompt": "a"}).status_code == 404
        before = before or settled_traces(server)
        connections = connections or num_connections(server)
    assert settled_traces(server) == before
    assert num_connections(server) < connections + len(FAILING), "no load leaves one"
    server.load("demo.gguf")
    assert server.chat("Hello!", max_tokens=2).status_code == 200


def test_a_model_that_is_broken_on_disk_ends_as_failed_and_can_be_put_back(
    own_server: Server,
) -> None:
    server = own_server
    file = server.folder / "models" / "own.gguf"
    shutil.copy(DEMO_GGUF, file)
    server.load("own.gguf")
    said = server.chat("Hello!", max_tokens=8).json()["choices"][0]["message"]["content"]
    broken = file.with_name(".broken")
    broken.write_bytes(DEMO_GGUF.read_bytes()[:200_000])
    os.replace(broken, file)
    assert server.chat("Hello!", max_tokens=8).json()["choices"][0]["message"]["content"] == said
    os.kill(server.processes_by_id()["0"]["process_id"], signal.SIGKILL)
    refused = server.chat("Hello!", max_tokens=8)
    assert refused.status_code in (400, 404, 503), refused.text
    assert "own.gguf" in json.dumps(refused.json())
    server.unload()
    shutil.copy(DEMO_GGUF, file)
    server.load("own.gguf")
    assert server.chat("Hello!", max_tokens=8).json()["choices"][0]["message"]["content"] == said
