"""Queues on hold outlive every process; deadlines end jobs that wait and jobs that run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from typing import Any

import httpx
import psutil
import pytest

from tests.helpers.server import ROOT, Server
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

QUEUE = "mgs-gen-0"


def submit(server: Server, **fields: Any) -> str:
    answer = server.chat("Count.", background=True, **fields)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def job(server: Server, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{server.url}/v1/jobs/{job_id}", timeout=10).json()
    return found


def change(server: Server, action: str, **body: Any) -> None:
    answer = server.post(f"/management/queues/0/{action}", body)
    assert answer.status_code == 200, answer.text


def interactive_queue(server: Server) -> dict[str, Any]:
    listed = httpx.get(f"{server.url}/management/queues", timeout=10).json()["data"]
    (found,) = [one for one in listed if one["queue"] == QUEUE]
    return dict(found)


def waiting_in_rq(server: Server) -> int:
    """What ``rq info`` says of the queue of generations."""
    command = [sys.executable, "-m", "rq.cli", "info", "--raw", "-Q", "-u", server.redis_url]
    lines = subprocess.check_output(command, text=True, cwd=ROOT).splitlines()
    (line,) = [line.split() for line in lines if QUEUE in line.split()]
    return int(line[2].strip(","))


def queued(server: Server) -> list[str]:
    query = {"status": "queued", "class": "interactive"}
    page = httpx.get(f"{server.url}/v1/jobs", params=query, timeout=10).json()
    return [one["id"] for one in page["data"]]


def kill_worker(server: Server) -> None:
    pid = int(server.processes_by_id()["0"]["process_id"])
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_ready_again(server, pid), "another worker", 30)


def kill_supervisor(server: Server) -> None:
    pid = int(server.processes_by_id()["0"]["process_id"])
    server.processes["workers"].kill()
    server.processes["workers"].wait()
    server.start("workers", "workers.supervision.supervisor")
    wait_until(lambda: is_ready_again(server, pid), "the next supervisor's worker", 30)


def kill_redis(server: Server) -> None:
    launcher = psutil.Process(server.processes["redis"].pid)
    redis = next(one for one in launcher.children() if one.name().endswith("-server"))
    redis.kill()
    wait_until(server.is_ready, "Redis again", 30)


def is_ready_again(server: Server, former: int) -> bool:
    entry = server.processes_by_id().get("0", {})
    return entry.get("state") == "ready" and entry["process_id"] not in (former, 0)


def test_what_is_held_waits_through_the_death_of_every_process(own_server: Server) -> None:
    own_server.load("fake")
    change(own_server, "hold")
    ids = [submit(own_server, priority=priority) for priority in (0, 5, -5)]
    for kill in (kill_worker, kill_supervisor, kill_redis):
        kill(own_server)
        assert sorted(queued(own_server)) == sorted(ids)
        shown = interactive_queue(own_server)
        assert (shown["state"], shown["waiting"], shown["running"]) == ("hold", 3, 0)
        assert waiting_in_rq(own_server) == 3
    assert [job(own_server, one)["queue"]["position"] for one in ids] == [2, 3, 1]
    change(own_server, "resume")
    ended = wait_until(lambda: all_finished(own_server, ids), "all jobs finish", 30)
    starts = [one["started_at"] for one in ended]
    assert starts[2] <= starts[0] <= starts[1]
    assert waiting_in_rq(own_server) == 0


def all_finished(server: Server, ids: list[str]) -> list[dict[str, Any]] | None:
    jobs = [job(server, one) for one in ids]
    return jobs if all(one["status"] == "finished" for one in jobs) else None


def test_a_deadline_ends_what_waits_and_what_runs(server: Server) -> None:
    server.load("fake-20ms", slots=1)
    running = submit(server, deadline_s=1.5, max_tokens=2000, ignore_eos=True)
    waiting = submit(server, deadline_s=1)
    for job_id in (running, waiting):
        ended = wait_until(partial(ended_job, server, job_id), "the end", 20)
        assert ended is not None
        assert (ended["status"], ended["error"]["code"]) == ("failed", "job_timeout")
    assert job(server, running)["started_at"] is not None
    assert job(server, waiting)["started_at"] is None


def ended_job(server: Server, job_id: str) -> dict[str, Any] | None:
    found = job(server, job_id)
    return found if found["status"] not in ("queued", "running") else None


def result_of(server: Server, job_id: str) -> tuple[str, int]:
    """The text of a job that finishes, and how often it gave way."""
    found = wait_until(lambda: all_finished(server, [job_id]), "the end", 30)
    assert found is not None
    (ended,) = found
    return ended["result"]["choices"][0]["message"]["content"], ended["yields"]


def test_what_is_handed_back_goes_on_with_the_same_text(server: Server) -> None:
    server.load("fake-20ms")
    body = {"max_tokens": 150, "ignore_eos": True, "seed": 5}
    undisturbed, _ = result_of(server, submit(server, **body))
    requeued = submit(server, **body)
    wait_until(lambda: job(server, requeued)["status"] == "running", "it runs")
    assert server.post(f"/v1/jobs/{requeued}/requeue").status_code == 202
    wait_until(lambda: runs_with(server, requeued, num_yields=1), "it runs again")
    held = submit(server, **body)
    wait_until(lambda: runs_with(server, held, num_yields=0), "it runs")
    change(server, "hold", yield_running=True)
    wait_until(lambda: interactive_queue(server)["running"] == 0, "all are handed back")
    assert waiting_in_rq(server) == 2
    change(server, "resume")
    assert result_of(server, requeued) == (undisturbed, 2)
    assert result_of(server, held) == (undisturbed, 1)


def runs_with(server: Server, job_id: str, num_yields: int) -> bool:
    found = job(server, job_id)
    return (found["status"], found["yields"]) == ("running", num_yields)


def test_a_drained_model_does_what_waits_and_takes_nothing_new(server: Server) -> None:
    server.load("fake-20ms", slots=1)
    ids = [submit(server, max_tokens=30, ignore_eos=True) for _ in range(2)]
    change(server, "drain")
    refused = server.chat("Count.")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_draining")
    wait_until(lambda: all_finished(server, ids), "what waits is done", 30)
