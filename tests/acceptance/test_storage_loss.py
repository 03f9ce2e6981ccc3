"""Redis loses everything in the middle of work: clients are told, the models stay."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil
import pytest
from redis import Redis
from rq import Worker

from tests.helpers.server import Server
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

TOLD_S = 5.0
CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "Count."}], "temperature": 0}


@dataclass
class Told:
    """What one client got, and when it got the last of it."""

    lines: list[str] = field(default_factory=list)
    status: int = 0
    ended_at: float = 0.0

    @property
    def error(self) -> Any:
        """The error object that came last; ``None`` after a whole answer."""
        return json.loads(self.lines[-1].removeprefix("data: ")).get("error")


def ask(server: Server, told: Told, **fields: Any) -> Told:
    with httpx.stream("POST", f"{server.url}{CHAT}", json={**BODY, **fields}, timeout=60) as answer:
        told.status = answer.status_code
        for line in answer.iter_lines():
            if line:
                told.lines.append(line)
    told.ended_at = time.monotonic()
    return told


def flush(server: Server) -> None:
    with Redis.from_url(server.redis_url, protocol=2) as redis:
        redis.flushall()


def restart_empty(server: Server) -> None:
    """Redis is killed and comes back without its file."""
    launcher = psutil.Process(server.processes["redis"].pid)
    launcher.suspend()
    redis = next(child for child in launcher.children() if child.name().endswith("-server"))
    redis.kill()
    state = server.folder / "state"
    for path in (*state.glob("append*"), *state.glob("*.rdb")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    launcher.resume()


@pytest.mark.parametrize("lose", [flush, restart_empty])
def test_whoever_waits_is_told_and_the_model_serves_on(own_server: Server, lose: Any) -> None:
    own_server.load("fake-20ms", slots=1)
    entry = own_server.processes_by_id()["0"]
    stream, waiting = Told(), Told()
    with ThreadPoolExecutor(2) as threads:
        asked: list[Future[Told]] = [
            threads.submit(ask, own_server, stream, stream=True, max_tokens=5000)
        ]
        wait_until(lambda: len(stream.lines) > 20, "the stream runs")
        asked.append(threads.submit(ask, own_server, waiting, max_tokens=10))
        wait_until(lambda: _num_waiting(own_server) == 1, "the other one waits")
        lost_at = time.monotonic()
        lose(own_server)
        for future in asked:
            future.result(30)
    print({"stream_s": stream.ended_at - lost_at, "waiting_s": waiting.ended_at - lost_at})
    assert (stream.status, waiting.status) == (200, 503)
    assert stream.error["code"] == waiting.error["code"] == "storage_lost"
    assert max(stream.ended_at, waiting.ended_at) - lost_at < TOLD_S
    next_answer = wait_until(lambda: _served(own_server), "the next request is served", TOLD_S)
    assert next_answer["usage"]["completion_tokens"] == 5
    pid = wait_until(lambda: _pid(own_server), "the worker tells of itself: it does so each second")
    assert pid == entry["process_id"], "the worker stayed, and its model"
    wait_until(lambda: _is_tidy(own_server), "RQ's tools see the idle worker, and no old job")


def _pid(server: Server) -> Any:
    return server.processes_by_id()["0"]["process_id"]


def _num_waiting(server: Server) -> int:
    with Redis.from_url(server.redis_url, protocol=2) as redis:
        return int(redis.llen("rq:queue:mgs-gen-0"))


def _served(server: Server) -> Any:
    answer = server.post(CHAT, {**BODY, "max_tokens": 5, "ignore_eos": True})
    if answer.status_code == 200:
        return answer.json()
    assert answer.json()["error"]["code"] == "storage_lost", answer.text
    return None


def _is_tidy(server: Server) -> bool:
    with Redis.from_url(server.redis_url, protocol=2) as redis:
        states = {worker.name.split(".")[1]: worker.get_state() for worker in Worker.all(redis)}
        jobs = [key for key in redis.keys("rq:job:*") if redis.ttl(key) == -1]
        started = redis.zcard("rq:wip:mgs-gen-0")
        idle = dict.fromkeys(("gen", "batch", "ctl"), "idle")
        return states == idle and not jobs and not started


def test_a_killed_worker_comes_back_with_its_model_after_a_loss(own_server: Server) -> None:
    own_server.load("fake-20ms")
    pid = _pid(own_server)
    flush(own_server)
    wait_until(lambda: own_server.processes_by_id().get("0"), "wanted again")
    os.kill(int(pid), signal.SIGKILL)
    assert wait_until(lambda: _served(own_server), "served by the next worker")
