"""R5: one job's whole life, once for every write to Redis, with something going wrong just there.

Each write of the job that Redis has executed is met in turn, before its sender hears of it. Either
the reply is lost, or the process that wrote is killed on the spot. Every such history must end as
an undisturbed one: the right text, one terminal event, nothing left in hand.
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
from tests.faults.clients import body, expected, is_exact, patiently, read_all
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


class Mishap(StrEnum):
    REPLY_LOST = "reply lost"
    KILLED = "writer killed"


@dataclass
class Trap:
    """Springs at the ``number``-th write of a job that is not among ``old``."""

    remote: Remote
    mishap: Mishap
    number: int
    old: set[bytes]
    sprung: str = ""
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
        self.sprung = exchange.name.decode()
        if self.mishap is Mishap.KILLED:
            self.victim = self._kill(exchange.client_port)
        return True

    def _kill(self, port: int) -> str:
        """End the process at the other side of that port; its part in the product."""
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
    """What is wrong with how it ended; the trap may not have sprung: then the job is over."""
    remote.proxy.watch(trap)
    try:
        problems = _stream(remote) if trap.mishap is Mishap.REPLY_LOST else _submit(remote, trap)
    finally:
        remote.proxy.watch(None)
    if not problems:
        for job_id in list(trap.seen):
            problems += _settled(remote, job_id.decode())
    return [f"{trap.mishap} at write {trap.number} ({trap.sprung}): {one}" for one in problems]


def _stream(remote: Remote) -> list[str]:
    (answer,) = read_all(remote.server.port, [body(8, _NUM_TOKENS)])
    if is_exact(answer, 8, _NUM_TOKENS):
        return []
    return [f"status {answer.status} {answer.code!r} {answer.text!r}"]


def _submit(remote: Remote, trap: Trap) -> list[str]:
    """In the background, so that the job outlives an API that is killed."""
    server = remote.server
    request = {**body(8, _NUM_TOKENS), "stream": False, "background": True}
    with contextlib.suppress(httpx.TransportError):
        answer = server.post("/v1/completions", request)
        if answer.status_code != 202:
            return [f"status {answer.status_code}"]
    wait_until(lambda: trap.victim != "web" or _is_down(remote), "the API is down")
    if trap.victim == "web":
        server.start("web", "api")
        patiently(server.is_ready)
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
        problems.append("holes in the log")
    if [event.is_terminal for event in events] != [False] * (len(events) - 1) + [True]:
        problems.append("not one terminal event at the end")

    def is_quiet() -> bool:
        held = redis.exists(names.claims_key("0"))
        moved = redis.lrange("rq:queue:mgs-gen-0:intermediate", 0, -1)
        running = redis.zcard(StartedJobRegistry("mgs-gen-0", redis).key)
        return not held and not moved and not running

    try:
        wait_until(is_quiet, "nothing is left in hand", 10)
    except AssertionError as error:
        problems.append(str(error))
    return problems


@contextmanager
def loaded_remote() -> Iterator[Remote]:
    with remote_server() as remote:
        remote.server.load("fake-10ms")
        yield remote


def histories(remote: Remote, mishap: Mishap, tally: Tally, every: int = 1) -> None:
    """From the first write to the last, until the trap does not spring any more."""
    old: set[bytes] = set()
    number = 1
    while True:
        trap = Trap(remote, mishap, number, old)
        for problem in run_history(remote, trap):
            tally.check(False, problem)
        old |= trap.seen
        if not trap.sprung:
            return
        tally.rounds += 1
        number += every
        if trap.victim in ("worker", "workers"):
            _renew(remote, trap.victim)


def _renew(remote: Remote, victim: str) -> None:
    """A worker without a back-off; a supervisor if it was that."""
    if victim == "workers":
        remote.server.start("workers", "workers.supervision.supervisor")
    patiently(remote.server.is_ready, 40)
    remote.server.unload()
    remote.server.load("fake-10ms")


def every_write(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with loaded_remote() as remote:
        for _ in range(rounds):
            for mishap in Mishap:
                histories(remote, mishap, tally)
    return tally.result()


RUNS = {"R5": Run(every_write, full=3)}
