"""Batches: every line is answered once, in little memory, whichever process is killed."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
from openai.types import Batch
from redis.exceptions import RedisError

from jobs.storage.connection import connect
from tests.helpers.batches import ENDED, Batches, batch_server, chat_line, jsonl, told
from tests.helpers.server import Server
from tests.helpers.waiting import wait_until
from tests.proofs.registry import Result, Tally, proof

_MIB = 1 << 20
_REDIS_GOAL = 20 * _MIB
_RUNNER_GOAL = 150 * _MIB
_IDLE_GOAL = 60 * _MIB
_STALL_GOAL_S = 15.0
_END_S = 1800.0
_LINES = 2000
_MODULES = {
    "web": "api",
    "batches": "api.batch_runner",
    "workers": "workers.supervision.supervisor",
    "redis": "jobs.embedded_redis.launcher",
}
_KILLED = ("batches", "web", "worker", "redis", "redis server", "workers")


@contextmanager
def _server() -> Iterator[Batches]:
    server = batch_server(MGS_SLOTS="8")
    try:
        server.load("fake", "fake")
        yield Batches(server)
    finally:
        server.stop()


@proof(
    "batch-lines",
    goal="each line answered once; Redis <= 20 MiB more, the runner <= 150 MiB, idle <= 60 MiB",
    full=50_000,
    fast=1000,
    timeout_s=300,
)
def test_each_line_of_a_large_batch_is_answered_once(rounds: int) -> Result:
    """A round is a line; every tenth of them is wrong."""
    tally = Tally()
    lines = (chat_line(n, temperature=9 if n % 10 == 9 else 0) for n in range(rounds))
    data = jsonl(lines)
    with _server() as batches:
        watch = _Watch(batches.server)
        started = time.monotonic()
        batch = batches.end_of(batches.create(data).id, _END_S)
        seconds = time.monotonic() - started
        watch.stop()
        output, errors = batches.output(batch), batches.errors(batch)
        ids = Counter(one["custom_id"] for one in output + errors)
        tally.check(batch.status == "completed", f"the batch is {batch.status}")
        tally.check(ids == Counter(f"r{n}" for n in range(rounds)), "not each line once")
        tally.check(len(errors) == rounds // 10, f"{len(errors)} lines in the error file")
        tally.note("Redis", watch.redis_bytes / _MIB, _REDIS_GOAL / _MIB, "MiB")
        tally.note("runner", watch.runner_bytes / _MIB, _RUNNER_GOAL / _MIB, "MiB")
        runner = psutil.Process(batches.server.processes["batches"].pid)
        wait_until(lambda: _is_idle(runner), "the runner gives memory back", 60)
        tally.note("idle", runner.memory_info().rss / _MIB, _IDLE_GOAL / _MIB, "MiB")
        tally.rounds = rounds
    return tally.result(f"{rounds} lines, {rounds / seconds:.0f} lines/s")


def _is_idle(runner: psutil.Process) -> bool:
    """Whether it has replaced itself, and is connected again."""
    return bool(runner.net_connections("unix")) and runner.memory_info().rss < _IDLE_GOAL


class _Watch:
    """The most memory of the runner, and what Redis has grown by, while it watches."""

    def __init__(self, server: Server) -> None:
        self._redis = connect(server.redis_url)
        self._runner = psutil.Process(server.processes["batches"].pid)
        self._first = self._used()
        self.redis_bytes, self.runner_bytes = 0, 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _used(self) -> int:
        return int(self._redis.info("memory")["used_memory"])

    def _run(self) -> None:
        while not self._is_over.wait(0.1):
            self.redis_bytes = max(self.redis_bytes, self._used() - self._first)
            self.runner_bytes = max(self.runner_bytes, self._runner.memory_info().rss)

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()
        self._redis.close()


@proof(
    "batch-kills",
    goal="each line answered once, the same answers as undisturbed; no pause > 15 s",
    full=3,
    fast=1,
    timeout_s=600,
)
def test_a_killed_process_changes_no_answer_of_a_batch(rounds: int) -> Result:
    """A round kills each of the processes once more, at another line."""
    tally = Tally()
    num_lines = _LINES if rounds > 1 else _LINES // 5
    data = jsonl(chat_line(n, max_tokens=8) for n in range(num_lines))
    random_ = random.Random(21)
    with _server() as batches:
        undisturbed = _answers(batches, _run(batches, data, [], tally, "nothing"))
        for what in _KILLED:
            places = range(num_lines // 10, num_lines * 9 // 10)
            kills = sorted(random_.sample(places, rounds))
            batch = _run(batches, data, kills, tally, what)
            answers = _answers(batches, batch)
            tally.check(batch.status == "completed", f"{what}: the batch is {batch.status}")
            tally.check(answers == undisturbed, f"{what}: other answers")
    tally.rounds = rounds
    return tally.result(f"{len(_KILLED)} processes, {num_lines} lines each")


def _answers(batches: Batches, batch: Batch) -> list[tuple[str, Any]]:
    return [(one["custom_id"], told(one)) for one in batches.output(batch)]


def _run(batches: Batches, data: bytes, kills: list[int], tally: Tally, what: str) -> Batch:
    """Run a batch, and kill one process at each of these numbers of ended lines."""
    batches.client = batches.client.with_options(max_retries=20)
    batch = batches.create(data)
    left, last, changed_at = list(kills), -1, time.monotonic()
    while batch.status not in ENDED:
        counts = batch.request_counts
        num = counts.completed + counts.failed
        now = time.monotonic()
        if num != last:
            last, changed_at = num, now
        tally.note("without progress", now - changed_at, _STALL_GOAL_S)
        if now - changed_at > 10 * _STALL_GOAL_S:
            raise AssertionError(f"{what}: no progress at {num} lines")
        while left and num >= left[0]:
            left.pop(0)
            _kill(batches.server, what)
        time.sleep(0.05)
        batch = batches.client.batches.retrieve(batch.id)
    return batch


def _kill(server: Server, what: str) -> None:
    """Kill a process, and start it again as a service would."""
    if what in ("worker", "redis server"):
        parent = "workers" if what == "worker" else "redis"
        for child in psutil.Process(server.processes[parent].pid).children(recursive=True):
            child.kill()
        return
    process = server.processes[what]
    process.kill()
    process.wait()
    server.start(what, _MODULES[what])
    if what == "redis":
        wait_until(lambda: _answers_ping(server), "Redis answers")


def _answers_ping(server: Server) -> bool:
    client = connect(server.redis_url, retries=0)
    try:
        return bool(client.ping())
    except RedisError:
        return False
    finally:
        client.close()
