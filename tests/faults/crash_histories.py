"""R5: the life of one job, repeated with a fault after each of its writes to Redis.

The fault happens after Redis has executed the write and before its sender gets the reply: either
the reply is lost, or the writing process is killed. Every such history must end as one without a
fault: the right text, one terminal event, no claim left.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

import httpx
import psutil
from rq.registry import StartedJobRegistry

from jobs.storage import names
from jobs.storage.event_log import read_log
from tests.faults.clients import body, expected, is_exact, read_all, retry
from tests.faults.registry import Result, Run, Tally
from tests.faults.rig import (
    Remote,
    Rig,
    kill,
    remote_server,
    text_of,
    wait_ended,
    workers_of,
)
from tests.helpers.tcp_proxy import Exchange
from tests.helpers.waiting import wait_until

WRITES = frozenset(
    b"EVALSHA EVAL EXEC LMOVE LREM LPUSH RPUSH HSET HSETNX HDEL HINCRBY SET DEL EXPIRE "
    b"PERSIST SADD SREM ZADD ZREM XADD PUBLISH".split()
)
_JOB_ID = re.compile(rb"\bcmpl-[0-9a-f]{32}")
_NUM_TOKENS = 6


class Fault(StrEnum):
    REPLY_LOST = "reply lost"
    KILLED = "writer killed"


@dataclass
class Trap:
    """Triggers at the ``number``-th write of a job that is not among ``old``."""

    remote: Remote
    fault: Fault
    number: int
    old: set[bytes]
    triggered: str = ""
    victim: str = ""
    num_seen: int = 0
    seen: set[bytes] = field(default_factory=set)

    def __call__(self, exchange: Exchange) -> bool:
        if exchange.name not in WRITES:
            return False
        ids = set(_JOB_ID.findall(exchange.command + exchange.reply)) - self.old
        if not ids:
            return False
        self.seen |= ids
        self.num_seen += 1
        if self.num_seen != self.number:
            return False
        self.triggered = exchange.name.decode()
        if self.fault is Fault.KILLED:
            self.victim = self._kill(exchange.client_port)
        return True

    def _kill(self, port: int) -> str:
        """Kill the process at the other end of that port; returns its role."""
        server = self.remote.server
        parts = {server.processes[name].pid: name for name in ("web", "workers")}
        parts |= dict.fromkeys(workers_of(server), "worker")
        for pid, name in parts.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                ports = [c.laddr.port for c in psutil.Process(pid).net_connections("tcp4")]
                if port in ports:
                    kill(pid)
                    return name
        return ""


def run_history(remote: Remote, trap: Trap) -> list[str]:
    """The problems at the end of a history. Without a trigger, the job had fewer writes."""
    remote.proxy.watch(trap)
    try:
        problems = _stream(remote) if trap.fault is Fault.REPLY_LOST else _submit(remote, trap)
    finally:
        remote.proxy.watch(None)
    if not problems:
        for job_id in list(trap.seen):
            problems += _settled(remote, job_id.decode())
    return [f"{trap.fault} at write {trap.number} ({trap.triggered}): {one}" for one in problems]


def _stream(remote: Remote) -> list[str]:
    (answer,) = read_all(remote.server.port, [body(8, _NUM_TOKENS)])
    if is_exact(answer, 8, _NUM_TOKENS):
        return []
    return [f"status {answer.status} {answer.code!r} {answer.text!r}"]


def _submit(remote: Remote, trap: Trap) -> list[str]:
    """Submit a background job, which survives the API's death."""
    server = remote.server
    request = {**body(8, _NUM_TOKENS), "stream": False, "background": True}
    with contextlib.suppress(httpx.TransportError):
        answer = server.post("/v1/completions", request)
        if answer.status_code != 202:
            return [f"status {answer.status_code}"]
    wait_until(lambda: trap.victim != "web" or _is_down(remote), "the API is down")
    if trap.victim == "web":
        server.start("web", "api")
        retry(server.is_ready)
    problems = []
    for job_id in list(trap.seen):  # written by now, accepted or not
        found = wait_ended(server, job_id.decode())
        if text_of(found) != expected(8, _NUM_TOKENS):
            problems.append(f"{found['status']} {text_of(found)!r} {found.get('error')}")
    return problems


def _is_down(remote: Remote) -> bool:
    return remote.server.processes["web"].poll() is not None


def _settled(remote: Remote, job_id: str) -> list[str]:
    redis = remote.direct
    events = read_log(redis, job_id)
    problems = []
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        problems.append("gaps in the log")
    if [event.is_terminal for event in events] != [False] * (len(events) - 1) + [True]:
        problems.append("not one terminal event at the end")

    def is_quiet() -> bool:
        held = redis.exists(names.claims_key("0"))
        moved = redis.lrange("rq:queue:mgs-gen-0:intermediate", 0, -1)
        running = redis.zcard(StartedJobRegistry("mgs-gen-0", redis).key)
        return not held and not moved and not running

    try:
        wait_until(is_quiet, "all claims are released", 10)
    except AssertionError as error:
        problems.append(str(error))
    return problems


@contextmanager
def loaded_remote() -> Iterator[Remote]:
    with remote_server() as remote:
        remote.server.load("fake-10ms")
        yield remote


def histories(remote: Remote, fault: Fault, tally: Tally, every: int = 1) -> None:
    """Histories from the first write on, until the trap does not trigger any more."""
    old: set[bytes] = set()
    number = 1
    while True:
        trap = Trap(remote, fault, number, old)
        for problem in run_history(remote, trap):
            tally.check(False, problem)
        old |= trap.seen
        if not trap.triggered:
            return
        tally.rounds += 1
        number += every
        if trap.victim in ("worker", "workers"):
            _renew(remote, trap.victim)


def _renew(remote: Remote, victim: str) -> None:
    """A new worker without a back-off, or a new supervisor if that was killed."""
    if victim == "workers":
        remote.server.start("workers", "workers.supervision.supervisor")
    retry(remote.server.is_ready, 40)
    remote.server.unload()
    remote.server.load("fake-10ms")


def every_write(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with loaded_remote() as remote:
        for _ in range(rounds):
            for fault in Fault:
                histories(remote, fault, tally)
    return tally.result()


RUNS = {"R5": Run(every_write, full=3)}
