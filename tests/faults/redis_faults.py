"""R: Redis that dies, hangs, loses its data, is full, disconnected or slow."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.faults.clients import Stream, body, expected, is_exact, read_all
from tests.faults.registry import Result, Run, Tally
from tests.faults.rig import (
    Remote,
    Rig,
    job,
    kill,
    remote_server,
    submit,
    text_of,
    wait_ended,
    wait_worker,
    worker_pid,
)
from tests.helpers.processes import free_port
from tests.helpers.server import ROOT, Server
from tests.helpers.waiting import wait_until

SLOW = "fake-20ms"


def first_served(server: Server, timeout_s: float = 60.0) -> float:
    """Seconds until a completion succeeds, with retries."""
    start = time.monotonic()

    def served() -> bool:
        with contextlib.suppress(httpx.TransportError):
            request = {"prompt": "k" * 8, "max_tokens": 8, "temperature": 0}
            answer = httpx.post(f"{server.url}/v1/completions", json=request, timeout=20)
            return answer.status_code == 200 and answer.json()["choices"][0]["text"] == "0000001 "
        return False

    wait_until(served, "a completion", timeout_s)
    return time.monotonic() - start


# R1.


def killed_while_idle(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with remote_server() as remote:
        remote.server.load(SLOW)
        pid = worker_pid(remote.server)
        for number in range(rounds):
            outage_s = (1.0, 5.0, 30.0, 120.0)[number % 4]
            remote.redis.kill()
            time.sleep(outage_s)
            remote.redis.start()
            tally.note(f"served after {outage_s:.0f} s", first_served(remote.server), 3.0)
            tally.check(wait_worker(remote.server) == pid, "another worker")
            wait_until(lambda: remote.direct.scard("rq:workers:mgs-gen-0") == 1, "it is registered")
            _check_stop(remote.server, tally)
            tally.rounds += 1
    return tally.result()


def _check_stop(server: Server, tally: Tally) -> None:
    job_id = submit(server, body(8, 400))
    wait_until(lambda: job(server, job_id)["status"] == "running", "it runs")
    start = time.monotonic()
    httpx.delete(f"{server.url}/v1/jobs/{job_id}", timeout=20)
    found = wait_ended(server, job_id)
    tally.check(found["status"] == "cancelled", "the stop command had no effect")
    tally.note("stop", time.monotonic() - start, 2.0)


# R2.


def forgets_everything(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with remote_server() as remote:
        server = remote.server
        for _ in range(rounds):
            server.load(SLOW, slots=1)
            streams = [Stream(server.port, body(8, 300))]
            streams[0].wait_chunks(5)  # alone: the one slot is its
            streams += [Stream(server.port, body(8, 300)) for _ in range(2)]
            wait_until(lambda: remote.direct.llen("rq:queue:mgs-gen-0") == 2, "two wait")
            start = time.monotonic()
            remote.direct.flushall()
            for stream in streams:
                answer = stream.result(30)
                tally.check(bool(answer.code) or answer.is_done, "no end")
                tally.note("until the error", answer.ended_at - start, 5.0)
            # Supervisors restore the desired models.
            tally.note("served", first_served(server), 5.0)
            registered = remote.direct.scard("rq:workers:mgs-gen-0")
            tally.check(registered == 1, f"{registered} workers registered")
            server.unload()
            tally.rounds += 1
    return tally.result()


# R3.


def away_at_the_end(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    outage_s = 25.0 if rounds > 1 else 4.0
    with remote_server() as remote:
        server = remote.server
        server.load(SLOW)
        pid = worker_pid(server)
        for _ in range(rounds):
            stream = Stream(server.port, body(8, 60))
            job_id = submit(server, body(8, 60))
            stream.wait_text(40)
            remote.redis.kill()
            time.sleep(outage_s)
            remote.redis.start()
            answer = stream.result()
            tally.check(is_exact(answer, 8, 60), f"stream {answer.code!r} {answer.text!r}")
            found = wait_ended(server, job_id)
            tally.check(text_of(found) == expected(8, 60), f"job {found}")
            tally.check(wait_worker(server) == pid, "another worker")
            tally.rounds += 1
    return tally.result(f"unavailable for {outage_s:.0f} s")


# R4.


def frozen_in_mid_stream(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    frozen_s = 10.0 if rounds > 1 else 3.0
    with remote_server() as remote:
        server = remote.server
        server.load(SLOW)
        for _ in range(rounds):
            streams = [Stream(server.port, body(8, 200)) for _ in range(5)]
            streams[0].wait_chunks(10)
            pid = remote.redis_pid()
            kill(pid, signal.SIGSTOP)
            try:
                _ask_health(server, tally, frozen_s)
            finally:
                kill(pid, signal.SIGCONT)
            for stream in streams:
                answer = stream.result()
                tally.check(is_exact(answer, 8, 200), f"{answer.code!r} {len(answer.text)}")
            tally.rounds += 1
    return tally.result(f"frozen for {frozen_s:.0f} s")


def _ask_health(server: Server, tally: Tally, for_s: float) -> None:
    until = time.monotonic() + for_s
    while time.monotonic() < until:
        start = time.monotonic()
        answer = httpx.get(f"{server.url}/health", timeout=10)
        tally.note("health", time.monotonic() - start, 1.0)
        tally.check(answer.status_code == 200, f"health {answer.status_code}")
        time.sleep(0.2)


# R6, R7.


def full(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with remote_server() as remote:
        server = remote.server
        server.load(SLOW)
        pid = worker_pid(server)
        for _ in range(rounds):
            stream = Stream(server.port, body(8, 150))
            stream.wait_chunks(5)
            remote.direct.config_set("maxmemory", "1")
            check_refused(server, tally)
            time.sleep(1.0)
            remote.direct.config_set("maxmemory", "0")
            tally.note("served after", first_served(server), 2.0)
            answer = stream.result()
            tally.check(is_exact(answer, 8, 150), f"stream {answer.code!r}")
            tally.check(wait_worker(server) == pid, "another worker")
            tally.rounds += 1
    return tally.result()


def check_refused(server: Server, tally: Tally) -> None:
    (answer,) = read_all(server.port, [body(8, 8)])
    tally.check(answer.status == 503, f"status {answer.status}")
    tally.check("retry-after" in answer.headers, "no Retry-After")


def read_only(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with remote_server() as remote:
        server = remote.server
        server.load(SLOW)
        pid = worker_pid(server)
        for _ in range(rounds):
            stream = Stream(server.port, body(8, 150))
            stream.wait_chunks(5)
            # A replica whose master does not answer keeps its data, and refuses writes.
            remote.direct.execute_command("REPLICAOF", "127.0.0.1", str(free_port()))
            check_refused(server, tally)
            time.sleep(1.0)
            remote.direct.execute_command("REPLICAOF", "NO", "ONE")
            tally.note("served after", first_served(server), 5.0)
            answer = stream.result()
            tally.check(is_exact(answer, 8, 150), f"stream {answer.code!r}")
            tally.check(wait_worker(server) == pid, "another worker")
            tally.rounds += 1
    return tally.result()


# R8.


@contextmanager
def cutting(remote: Remote, rig: Rig, mean_s: float = 0.2) -> Iterator[list[int]]:
    """Cut all connections at random moments until the end of the block."""
    counts: list[int] = []
    stop = threading.Event()

    def cut() -> None:
        while not stop.wait(rig.random.expovariate(1 / mean_s)):
            counts.append(remote.proxy.cut())

    thread = threading.Thread(target=cut, daemon=True)
    thread.start()
    try:
        yield counts
    finally:
        stop.set()
        thread.join()


def cut_at_random(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    num_tokens = num_streams = 0
    with remote_server(MGS_SLOTS="20") as remote:
        server = remote.server
        server.load("fake-10ms")
        with cutting(remote, rig) as counts:
            for _ in range(rounds):
                for answer in read_all(server.port, [body(8, 400) for _ in range(20)]):
                    num_tokens += len(answer.text)
                    num_streams += 1
                    # A request that was refused before its start is not lost.
                    is_refused = answer.status == 503 and not answer.text
                    tally.check(
                        is_exact(answer, 8, 400) or is_refused,
                        f"{answer.status} {answer.code!r} {answer.text[-20:]!r}",
                    )
                    tally.note("refused with 503", is_refused, 1, "")
                tally.rounds += 1
    return tally.result(f"{num_tokens} tokens in {num_streams} streams, {len(counts)} cuts")


# R9.


def far_away(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with remote_server() as remote:
        server = remote.server
        server.load(SLOW)
        for number in range(rounds):
            delay_s = (0.05, 0.25)[number % 2] if rounds > 1 else 0.05
            (near,) = read_all(server.port, [body(8, 40)])
            remote.proxy.delay(delay_s)
            (far,) = read_all(server.port, [body(8, 40)])
            remote.proxy.delay(0.0)
            tally.check(is_exact(near, 8, 40) and is_exact(far, 8, 40), f"{far.code!r}")
            trip_s = 2 * delay_s
            name = f"at {delay_s * 1000:.0f} ms each way:"
            first = (far.first_at - far.sent_at) - (near.first_at - near.sent_at)
            tally.note(f"{name} to the first token", first / trip_s, 12.0, "round trips")
            gap = far.longest_gap_s - near.longest_gap_s
            tally.note(f"{name} longest pause", gap / trip_s, 1.5, "round trips")
            tally.rounds += 1
    return tally.result()


# R10.


def subscribers_cut(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    num_tokens = 0
    with remote_server(MGS_SLOTS="20") as remote:
        server = remote.server
        server.load("fake-10ms")
        stop = threading.Event()

        def cut() -> None:
            while not stop.wait(2.0):
                remote.direct.client_kill_filter(_type="pubsub")

        thread = threading.Thread(target=cut, daemon=True)
        thread.start()
        for _ in range(rounds):
            for answer in read_all(server.port, [body(8, 400) for _ in range(10)]):
                num_tokens += len(answer.text)
                tally.check(is_exact(answer, 8, 400), f"{answer.status} {answer.code!r}")
                tally.note("longest gap", answer.longest_gap_s, 1.0)
            tally.rounds += 1
        stop.set()
        thread.join()
    return tally.result(f"{num_tokens} tokens")


# R11.


def wrong_url(rig: Rig, rounds: int) -> Result:
    """A wrong password, a missing one, a port without a server."""
    tally = Tally()
    with remote_server() as remote:
        remote.direct.config_set("requirepass", "the-right-one")
        socket = remote.redis.socket
        for _ in range(rounds):
            for url, cause in (
                (f"unix://:sesame-4711@{socket}?db=0", "password"),
                (f"unix://{socket}?db=0", "uthentication"),
                (f"redis://:sesame-4711@127.0.0.1:{free_port()}/0", "does not answer"),
            ):
                _try_supervisor(url, cause, tally)
            tally.rounds += 1
        remote.direct.config_set("requirepass", "")
    return tally.result()


def _try_supervisor(url: str, cause: str, tally: Tally) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MGS_", "REDIS_"))}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "workers.supervision.supervisor"],
        cwd=ROOT,
        env={**kept, "REDIS_URL": url, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    is_refusal = "does not" not in cause
    output = done.stdout + done.stderr
    tally.check(done.returncode == 1, f"exit status {done.returncode}")
    tally.check(cause in output, f"not named: {output[-200:]!r}")
    tally.check("sesame" not in output, "the password is in the log")
    tally.check("Traceback" not in output, "a traceback")
    name = "until the error" if is_refusal else "until the error, without a server"
    tally.note(name, time.monotonic() - start, 3.0 if is_refusal else 20.0)


RUNS = {
    "R1": Run(killed_while_idle, full=8, fast=1),
    "R2": Run(forgets_everything, full=20, fast=1),
    "R3": Run(away_at_the_end, full=4, fast=1),
    "R4": Run(frozen_in_mid_stream, full=6, fast=1),
    "R6": Run(full, full=20, fast=1),
    "R7": Run(read_only, full=20, fast=1),
    "R8": Run(cut_at_random, full=12, fast=1),
    "R9": Run(far_away, full=20, fast=1),
    "R10": Run(subscribers_cut, full=25, fast=1),
    "R11": Run(wrong_url, full=5),
}
