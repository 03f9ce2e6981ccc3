"""/metrics of a running server: real jobs, and a worker that dies."""

from __future__ import annotations

import os
import signal

import httpx

from tests.helpers.server import Server
from tests.helpers.waiting import wait_until


def metric(server: Server, sample: str) -> float:
    """The value of a sample, written as in Prometheus' text; 0 when there is none."""
    for line in httpx.get(f"{server.url}/metrics", timeout=10).text.splitlines():
        if line.startswith(f"{sample} "):
            return float(line.rpartition(" ")[2])
    return 0.0


def test_jobs_and_tokens_of_each_model_are_counted(server: Server) -> None:
    server.load("demo", "5")
    names = ("prompt", "cached", "generated")
    before = [metric(server, f'mgs_{name}_tokens_total{{model_id="5"}}') for name in names]
    usages = [server.chat("Hello!", "5").json()["usage"] for _ in range(3)]
    after = [metric(server, f'mgs_{name}_tokens_total{{model_id="5"}}') for name in names]
    assert [b - a for a, b in zip(before, after, strict=True)] == [
        sum(usage["prompt_tokens"] for usage in usages),
        sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages),
        sum(usage["completion_tokens"] for usage in usages),
    ]
    assert metric(server, 'mgs_time_to_first_token_seconds_count{model_id="5"}') >= 3
    assert metric(server, 'mgs_worker_memory_bytes{model_id="5"}') > 0


def test_a_worker_that_dies_is_counted(own_server: Server) -> None:
    own_server.load("fake")
    os.kill(own_server.processes_by_id()["0"]["process_id"], signal.SIGKILL)
    wait_until(
        lambda: any(
            line.startswith("mgs_worker_crashes_total{") and line.endswith(" 1.0")
            for line in httpx.get(f"{own_server.url}/metrics", timeout=10).text.splitlines()
        ),
        "the death is counted",
    )
