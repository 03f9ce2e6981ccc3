"""A machine is lost: neither the worker nor its supervisor is there any more to say so."""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest
from redis import Redis

from tests.helpers.server import Server
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

TOLD_S = 10.0
CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "Count."}], "temperature": 0}


class Stream:
    """A client that reads to the end; ``lines`` grows meanwhile."""

    def __init__(self, server: Server, **fields: Any) -> None:
        self.lines: list[str] = []
        self.ended_at = 0.0
        self._url = server.url + CHAT
        self._body = {**BODY, "stream": True, **fields}

    def read(self) -> None:
        with httpx.stream("POST", self._url, json=self._body, timeout=60) as answer:
            assert answer.status_code == 200, answer.read()
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    self.lines.append(line[6:])
        self.ended_at = time.monotonic()

    @property
    def error(self) -> Any:
        last = self.lines[-1]
        return None if last == "[DONE]" else json.loads(last).get("error")


def signal_host(server: Server, number: signal.Signals) -> None:
    """Both at once: the supervisor first, so that it sees nothing of its worker's end."""
    worker = int(server.processes_by_id()["0"]["process_id"])
    assert worker
    server.processes["workers"].send_signal(number)
    psutil.Process(worker).send_signal(number)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_host_is_told_within_ten_seconds(own_server: Server, how: signal.Signals) -> None:
    own_server.load("fake-20ms")
    stream = Stream(own_server, max_tokens=10_000, ignore_eos=True)
    with ThreadPoolExecutor(2) as threads:
        reading = threads.submit(stream.read)
        whole = threads.submit(
            own_server.post, CHAT, {**BODY, "max_tokens": 10_000, "ignore_eos": True}
        )
        wait_until(lambda: len(stream.lines) > 20, "the stream runs")
        family = [psutil.Process(own_server.processes["workers"].pid)]
        family += family[0].children()
        lost_at = time.monotonic()
        signal_host(own_server, how)
        reading.result(30)
        print({how.name: stream.ended_at - lost_at})
        assert stream.error["code"] == "worker_lost"
        assert stream.ended_at - lost_at < TOLD_S
        assert whole.result(5).json()["error"]["code"] == "worker_lost"
    if how is signal.SIGSTOP:
        for process in family:
            process.resume()
    else:
        own_server.processes["workers"].wait()
        own_server.start("workers", "workers.supervision.supervisor")
    wait_until(lambda: _answers(own_server), "the next request is served")
    wait_until(lambda: _num_live(own_server) == 0, "nothing counts any more")
    states = {job["status"] for job in httpx.get(f"{own_server.url}/v1/jobs").json()["data"]}
    assert states <= {"finished", "failed"}


def _answers(server: Server) -> bool:
    answer = server.post(CHAT, {**BODY, "max_tokens": 5})
    return bool(answer.status_code == 200)


def _num_live(server: Server) -> int:
    with Redis.from_url(server.redis_url, protocol=2) as redis:
        return int(redis.zcard("mgs:live"))


def test_a_worker_that_its_supervisor_restarts_is_a_pause(own_server: Server) -> None:
    """The watchdog takes longer than a lost host is given; its heartbeats go on."""
    own_server.load("fake-20ms")
    stream = Stream(own_server, max_tokens=400, ignore_eos=True)
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(stream.read)
        wait_until(lambda: len(stream.lines) > 20, "the stream runs")
        worker = psutil.Process(int(own_server.processes_by_id()["0"]["process_id"]))
        worker.suspend()
        reading.result(60)
    assert not worker.is_running()
    assert stream.lines[-1] == "[DONE]"
    assert not stream.error
