"""L7: a mixed load for a long time with periodic faults; at the end all counts must agree."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from jobs.storage import names
from jobs.storage.event_log import read_log
from tests.faults.clients import Answer, body, expected, read_stream, retry
from tests.faults.registry import Result, Run, Tally
from tests.faults.rig import (
    Remote,
    Rig,
    kill,
    num_fds,
    remote_server,
    rss_mb,
    text_of,
    wait_ended,
    workers_of,
)
from tests.helpers.waiting import wait_until

_FAULT_EVERY_S = 20.0
_NUM_CLIENTS = 6


@dataclass
class Soak:
    """The clients of the soak, and their results."""

    remote: Remote
    until: float
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    background: list[tuple[str, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def client(self, seed: int) -> None:
        """Run clients of all kinds, one after the other."""
        random_ = random.Random(seed)
        while time.monotonic() < self.until:
            length = random_.randint(20, 200)
            kind = random_.choice(["stream", "stream", "leave", "background", "cancel"])
            with contextlib.suppress(httpx.TransportError):
                self._act(kind, length, random_)
            time.sleep(random_.uniform(0, 0.3))

    def _act(self, kind: str, length: int, random_: random.Random) -> None:
        port = self.remote.server.port
        if kind == "stream":
            self._judge(asyncio.run(read_stream(port, body(8, length))), length)
        elif kind == "leave":
            place = random_.randint(1, 15)
            asyncio.run(read_stream(port, body(8, length), leave_after=place))
            self._count("left")
        else:
            self._in_background(length, is_cancelled=kind == "cancel")

    def _judge(self, answer: Answer, length: int) -> None:
        if answer.is_done and answer.text == expected(8, length):
            self._count("exact")
        elif answer.failure or answer.status in (0, 503, 404):
            # The API was killed or has answered 503: a client may retry.
            self._count("refused or cut off")
            self._check(expected(8, length).startswith(answer.text), f"text {answer.text!r}")
        else:
            self._check(False, f"{answer.status} {answer.code!r} {len(answer.text)} of {length}")

    def _in_background(self, length: int, *, is_cancelled: bool) -> None:
        server = self.remote.server
        request = {**body(8, length), "stream": False, "background": True}
        answer = server.post("/v1/completions", request)
        if answer.status_code != 202:
            self._count("refused or cut off")
            return
        job_id = str(answer.json()["id"])
        if is_cancelled:
            httpx.delete(f"{server.url}/v1/jobs/{job_id}", timeout=60)
            self._count("cancelled")
        else:
            with self.lock:
                self.background.append((job_id, length))
            self._count("background")

    def _count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1

    def _check(self, is_right: bool, what: str) -> None:
        if not is_right:
            with self.lock:
                self.wrong.append(what)


def _faults(remote: Remote) -> dict[str, Callable[[], object]]:
    server = remote.server

    def kill_worker() -> None:
        for pid in workers_of(server):
            kill(pid)

    def restart(name: str, module: str) -> None:
        server.processes[name].kill()
        server.processes[name].wait()
        server.start(name, module)

    def kill_redis() -> None:
        remote.redis.kill()
        time.sleep(1.0)
        remote.redis.start()

    def freeze_redis() -> None:
        pid = remote.redis_pid()
        kill(pid, signal.SIGSTOP)
        time.sleep(3.0)
        kill(pid, signal.SIGCONT)

    def silence() -> None:
        remote.proxy.hold_data()
        time.sleep(3.0)
        remote.proxy.release_data()

    return {
        "worker killed": kill_worker,
        "api killed": lambda: restart("web", "api"),
        "supervisor killed": lambda: restart("workers", "workers.supervision.supervisor"),
        "redis killed": kill_redis,
        "redis frozen": freeze_redis,
        "network silent": silence,
        "connections cut": remote.proxy.cut,
        "subscribers cut": lambda: remote.direct.client_kill_filter(_type="pubsub"),
    }


def soak(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    done: Counter[str] = Counter()
    with remote_server(MGS_SLOTS="8", MGS_ORPHAN_S="5") as remote:
        remote.server.load("fake-10ms")
        running = Soak(remote, time.monotonic() + rig.soak_s)
        clients = [
            threading.Thread(target=running.client, args=(rig.random.random(),), daemon=True)
            for _ in range(_NUM_CLIENTS)
        ]
        for client in clients:
            client.start()
        supervisor_mb = 0.0
        while time.monotonic() + _FAULT_EVERY_S / 2 < running.until:
            time.sleep(min(_FAULT_EVERY_S, rig.soak_s / 4))
            name, act = rig.random.choice(list(_faults(remote).items()))
            act()
            done[name] += 1
            supervisor_mb = supervisor_mb or rss_mb(remote.server.processes["workers"].pid)
        for client in clients:
            client.join(120)
            tally.check(not client.is_alive(), "a client hangs")
        _balance(running, tally)
    tally.rounds = sum(done.values())
    counts = ", ".join(f"{count} {name}" for name, count in running.counts.items())
    faults = ", ".join(f"{count} {name}" for name, count in done.items())
    return tally.result(f"{rig.soak_s:.0f} s; {counts}; {faults}")


def _balance(running: Soak, tally: Tally) -> None:
    remote = running.remote
    retry(remote.server.is_ready, 60)
    for what in running.wrong:
        tally.check(False, what)
    for job_id, length in running.background:
        found = wait_ended(remote.server, job_id)
        is_right = text_of(found) == expected(8, length)
        tally.check(is_right, f"{job_id}: {found['status']} {found.get('error')}")
    redis = remote.direct
    ids = [key.decode().removeprefix(names.job_key("")) for key in redis.keys(names.job_key("*"))]
    for job_id in ids:
        wait_ended(remote.server, job_id)
        ends = sum(event.is_terminal for event in read_log(redis, job_id))
        tally.check(ends == 1, f"{job_id} has {ends} terminal events")
    wait_until(lambda: not redis.exists(names.claims_key("0")), "no claims")
    for name in ("queue:mgs-gen-0", "queue:mgs-gen-0:intermediate", "wip:mgs-gen-0"):
        left = redis.zcard(f"rq:{name}") if name.startswith("wip") else redis.llen(f"rq:{name}")
        tally.check(left == 0, f"{left} left in {name}")
    tally.check(len(workers_of(remote.server)) == 1, "not one worker")
    tally.note("descriptors of the API", num_fds(remote.server.processes["web"].pid), 100, "")


RUNS = {"L7": Run(soak, full=1)}
