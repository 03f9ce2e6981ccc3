"""D and U: crashes of all processes, restarts, upgrades, other data in Redis."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from jobs.storage import names
from tests.faults.clients import Stream, body, expected, is_exact, read_all, retry
from tests.faults.registry import Result, Run, Tally
from tests.faults.rig import (
    Rig,
    direct_client,
    kill,
    running_server,
    submit,
    text_of,
    wait_ended,
    wait_gone,
    wait_worker,
    worker_pid,
    workers_of,
)
from tests.helpers.server import Server
from tests.helpers.waiting import wait_until

SLOW = "fake-20ms"


def family_of(server: Server) -> list[psutil.Process]:
    parents = [psutil.Process(one.pid) for one in server.processes.values() if one.poll() is None]
    return parents + [child for one in parents for child in one.children(recursive=True)]


# D1.


def everything_killed(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with running_server() as server:
        server.load(SLOW, slots=2)
        for _ in range(rounds):
            jobs = [submit(server, body(8, 50)) for _ in range(10)]
            time.sleep(1.5)  # the append-only file is written once a second
            family = family_of(server)
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            _, alive = psutil.wait_procs(family, timeout=10)
            tally.check(not alive, f"orphans: {alive}")
            for popen in server.processes.values():
                popen.wait()
            start = time.monotonic()
            server.start_all()
            wait_worker(server)
            tally.note("until up", time.monotonic() - start, 5.0)
            ended = [wait_ended(server, job_id) for job_id in jobs]
            lost = [found for found in ended if text_of(found) != expected(8, 50)]
            tally.check(not lost, f"{len(lost)} lost: {lost[:1]}")
            tally.rounds += 1
    return tally.result()


# D2.


def supervisor_or_api_killed(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with running_server() as server:
        server.load(SLOW)
        for _ in range(rounds):
            _kill_supervisor(server, tally)
            _kill_api(server, tally)
            tally.rounds += 1
    return tally.result()


def _kill_supervisor(server: Server, tally: Tally) -> None:
    stream = Stream(server.port, body(8, 300))
    stream.wait_chunks(5)
    pid, killed_at = worker_pid(server), time.monotonic()
    server.processes["workers"].kill()
    server.processes["workers"].wait()
    wait_gone(pid)
    tally.note("worker without supervisor ends", time.monotonic() - killed_at, 5.0)
    server.start("workers", "workers.supervision.supervisor")
    answer = stream.result()
    tally.check(is_exact(answer, 8, 300), f"stream {answer.code!r} {len(answer.text)}")
    tally.check(len(workers_of(server)) == 1, f"{len(workers_of(server))} workers")


def _kill_api(server: Server, tally: Tally) -> None:
    pid = worker_pid(server)
    job_id = submit(server, body(8, 100))
    stream = Stream(server.port, body(8, 300))
    stream.wait_chunks(5)
    server.processes["web"].kill()
    server.processes["web"].wait()
    tally.check(bool(stream.result().code), "the stream ended as if it was complete")
    server.start("web", "api")
    retry(server.is_ready)
    tally.check(text_of(wait_ended(server, job_id)) == expected(8, 100), "the background job")
    tally.check(wait_worker(server) == pid, "another worker")


# D3.


def redis_killed(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with running_server() as server:
        server.load(SLOW, slots=1)
        pid = worker_pid(server)
        for _ in range(rounds):
            jobs = [submit(server, body(8, 20)) for _ in range(10)]
            stream = Stream(server.port, body(8, 40))
            time.sleep(1.2)
            tally.note("back", _kill_redis(server), 3.0)
            ended = [wait_ended(server, job_id) for job_id in jobs]
            lost = [found for found in ended if text_of(found) != expected(8, 20)]
            tally.check(not lost, f"{len(lost)} lost: {lost[:1]}")
            tally.check(is_exact(stream.result(), 8, 40), "the stream")
            tally.check(wait_worker(server) == pid, "another worker")
            tally.rounds += 1
            time.sleep(10 if rounds > 1 else 0)  # steady again: the next start is at once
    return tally.result()


def _kill_redis(server: Server) -> float:
    """Kill Redis; returns the seconds until another process answers."""
    with direct_client(server.redis_url) as redis:
        former = redis.info("server")["process_id"]
        start = time.monotonic()
        kill(former)
        wait_until(lambda: redis.info("server")["process_id"] != former, "another Redis", 30)
        return time.monotonic() - start


# D5.


def cut_file(rig: Rig, rounds: int) -> Result:
    """The append-only file ends in the middle of a command, as after a power failure."""
    tally = Tally()
    with running_server() as server:
        server.load(SLOW)
        for number in range(rounds):
            job_id = submit(server, body(8, 8))
            wait_ended(server, job_id)
            time.sleep(1.2)
            for process in family_of(server):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            for popen in server.processes.values():
                popen.wait()
            _cut(server.folder / "state", 1 + number)
            server.start_all()
            wait_worker(server)
            tally.check(text_of(wait_ended(server, job_id)) == expected(8, 8), "an old job")
            (answer,) = read_all(server.port, [body(8, 8)])
            tally.check(is_exact(answer, 8, 8), f"a new job: {answer.code!r}")
            tally.rounds += 1
    return tally.result()


def _cut(state: Path, num_bytes: int) -> None:
    files = [path for path in state.rglob("*.aof") if path.stat().st_size > num_bytes]
    newest = max(files, key=lambda path: path.stat().st_mtime)
    with newest.open("rb+") as file:
        file.truncate(newest.stat().st_size - num_bytes)


# D6.


def purge_at_the_start(rig: Rig, rounds: int) -> Result:
    """A purge while jobs are taken: each job is run or purged, not both."""
    tally = Tally()
    num_purged = num_run = 0
    with rig.server("fake-10ms", slots=4) as server:
        for _ in range(rounds):
            jobs = [submit(server, body(8, 3)) for _ in range(10)]
            time.sleep(rig.random.uniform(0, 0.03))
            server.post("/management/process/clean-up", {"timeout": 0})
            for job_id in jobs:
                found = wait_ended(server, job_id)
                is_run = found["status"] == "finished" and text_of(found) == expected(8, 3)
                is_purged = found["status"] == "cancelled" and not found.get("result")
                tally.check(is_run != is_purged, f"{found}")
                num_run += is_run
                num_purged += is_purged
            tally.rounds += 1
    return tally.result(f"{num_run} run, {num_purged} purged")


# D7.

_INDEXES = (names.JOB_INDEX, names.JOB_EXPIRY, names.LIVE)


def after_all_has_expired(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with running_server(MGS_LOG_TTL_S="10", MGS_FAILURE_TTL_S="10") as server:
        server.load("fake")
        with direct_client(server.redis_url) as redis:
            jobs = [submit(server, body(8, 4)) for _ in range(rounds)]
            bad = [submit(server, body(8, 4, logit_bias={"500": 1})) for _ in range(3)]
            queued = [submit(server, body(8, 400)) for _ in range(3)]
            for job_id in queued:
                httpx.delete(f"{server.url}/v1/jobs/{job_id}", timeout=20)
            for job_id in (*jobs, *bad, *queued):
                wait_ended(server, job_id)
            time.sleep(13)  # their TTL; without listing, which may delete keys
            left = [key for key in redis.keys("*") if re.search(rb"cmpl-[0-9a-f]{32}", key)]
            tally.check(not left, f"{len(left)} keys: {left[:3]}")
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not any(map(redis.zcard, _INDEXES)), "empty indexes", 15)
            for index in _INDEXES:
                tally.note(f"ids in {index}", redis.zcard(index), 0, "")
            # RQ's own lists are cleaned once a minute.
            lists = ("rq:finished:mgs-gen-0", "rq:failed:mgs-gen-0", "rq:canceled:mgs-gen-0")
            wait_until(lambda: not any(redis.zcard(key) for key in lists), "RQ's lists", 90)
        tally.rounds = rounds
    return tally.result()


# U1.


def api_restarted(rig: Rig, rounds: int) -> Result:
    """Readers of a job's events reconnect to the next API process."""
    tally = Tally()
    with running_server() as server:
        server.load(SLOW)
        for _ in range(rounds):
            jobs = [submit(server, body(8, 150)) for _ in range(8)]
            readers = [Reader(server, job_id) for job_id in jobs]
            _wait_all_read(readers)
            server.processes["web"].terminate()
            server.processes["web"].wait(15)
            server.start("web", "api")
            for reader in readers:
                reader.thread.join(60)
                tally.check(reader.text == expected(8, 150), f"{reader.text[-30:]!r}")
            tally.rounds += 1
    return tally.result()


def _wait_all_read(readers: list[Reader]) -> None:
    wait_until(lambda: all(len(one.text) > 5 for one in readers), "all read", 30)


class Reader:
    """Reads a job's events in a thread, and resumes after a lost connection."""

    def __init__(self, server: Server, job_id: str) -> None:
        self.text = ""
        self._url = f"{server.url}/v1/jobs/{job_id}/events"
        self._last: str | None = None
        self._is_over = False
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        until = time.monotonic() + 60
        while not self._is_over and time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError):
                self._read_on()
            time.sleep(0.05)

    def _read_on(self) -> None:
        headers = {"Last-Event-ID": self._last} if self._last else {}
        with httpx.stream("GET", self._url, headers=headers, timeout=30) as answer:
            for line in answer.iter_lines():
                if line.startswith("id: "):
                    self._last = line[4:]
                elif line.startswith("data: "):
                    event = json.loads(line[6:])
                    self.text += event.get("text", "")
                    self._is_over = event.get("kind") in ("finished", "failed", "cancelled")


# U2.


def other_versions(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    requests: tuple[Any, ...] = (
        b"",
        b"{}",
        b"not json",
        b'{"v": 99}',
        b'{"type": "GenerateRequest", "v": 99, "prompts": "?"}',
        b'["list"]',
        b"\xff" * 100,
    )
    with rig.server(SLOW, slots=1) as server, direct_client(server.redis_url) as redis:
        pid = worker_pid(server)
        for number in range(rounds):
            first = Stream(server.port, body(8, 30))
            first.wait_chunks(1)
            job_id = submit(server, body(8, 4))
            redis.set(names.request_key(job_id), requests[number % len(requests)])
            tally.check(is_exact(first.result(), 8, 30), "the one before")
            found = wait_ended(server, job_id)
            named = str((found.get("error") or {}).get("code"))
            is_named = found["status"] == "failed" and named not in ("None", "worker_lost")
            tally.check(is_named, f"{requests[number % len(requests)]!r}: {found}")
            (answer,) = read_all(server.port, [body(8, 8)])
            tally.check(is_exact(answer, 8, 8), "the next one")
            tally.check(wait_worker(server) == pid, "another worker")
            tally.rounds += 1
    return tally.result()


# U3.


def swapped_file(rig: Rig, rounds: int) -> Result:
    """A model file is replaced by a rename; the loaded model must not change."""
    tally = Tally()
    with running_server() as server:
        models = server.folder / "models"
        path = models / "swap.gguf"
        good = (models / "demo.gguf").read_bytes()
        for _ in range(rounds):
            path.write_bytes(good)
            server.load("swap.gguf")
            request = body(prompt="Count from 1", max_tokens=60, ignore_eos=True)
            (before,) = read_all(server.port, [request])
            other = models / "other.tmp"
            other.write_bytes(good[:-50_000] + bytes(50_000))
            other.rename(path)
            (after,) = read_all(server.port, [request])
            tally.check(after.is_done and after.text == before.text, f"{after.code!r}")
            path.unlink()
            (gone,) = read_all(server.port, [request])
            tally.check(gone.text == before.text, "after the file was deleted")
            server.unload()
            tally.rounds += 1
        shutil.copy(models / "demo.gguf", path)
    return tally.result()


RUNS = {
    "D1": Run(everything_killed, full=20),
    "D2": Run(supervisor_or_api_killed, full=20),
    "D3": Run(redis_killed, full=20),
    "D5": Run(cut_file, full=20),
    "D6": Run(purge_at_the_start, full=1000, fast=5),
    "D7": Run(after_all_has_expired, full=200),
    "U1": Run(api_restarted, full=20, fast=1),
    "U2": Run(other_versions, full=70, fast=7),
    "U3": Run(swapped_file, full=20),
}
