"""F: workers that die, hang, freeze, run twice or are stopped."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import psutil
from rq.registry import StartedJobRegistry

from jobs.storage import names
from jobs.storage.event_log import read_log
from tests.faults.clients import Stream, body, expected, is_exact, read_all
from tests.faults.registry import Result, Run, Tally
from tests.faults.rig import (
    Remote,
    Rig,
    direct_client,
    job,
    kill,
    num_fds,
    remote_server,
    rss_mb,
    running_server,
    submit,
    text_of,
    wait_ended,
    wait_gone,
    wait_worker,
    worker_pid,
    workers_of,
)
from tests.helpers.processes import is_running
from tests.helpers.server import Server
from tests.helpers.tcp_proxy import Exchange
from tests.helpers.waiting import wait_until

SLOW = "fake-10ms"


def reload_model(server: Server, model: str, **options: Any) -> float:
    """Load the model again, without a restart back-off; returns the seconds of the load."""
    if server.processes_by_id():
        server.unload()
    start = time.monotonic()
    server.load(model, **options)
    return time.monotonic() - start


# F1.


def killed_in_mid_stream(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with running_server() as server:
        for number in range(rounds):
            model = (SLOW, "demo.gguf", "demo")[number % 3]
            _kill_a_stream(rig, server, tally, model, number)
            if model == SLOW:
                _kill_a_stream_that_wants_to_know(server, tally)
            tally.rounds += 1
    return tally.result()


def _kill_a_stream(rig: Rig, server: Server, tally: Tally, model: str, number: int) -> None:
    """Kill the worker of a stream; greedy and seeded sampling alternate.

    The demo models are sampled greedily only: past the end of its answer their distribution is
    nearly flat, and a draw depends on the last bits of logits, which differ between decode and
    prefill.
    """
    load_s = reload_model(server, model)
    temperature = (0, 0.8)[number % 2]
    is_endless = temperature == 0 or model == SLOW
    request = body(8, 150, ignore_eos=is_endless, temperature=temperature, seed=5 + number)
    (undisturbed,) = read_all(server.port, [request])
    stream = Stream(server.port, request)
    stream.wait_text(rig.random.randint(1, 60))
    is_in_mid_stream = stream.is_open
    kill(worker_pid(server))
    answer = stream.result()
    is_same = answer.is_done and answer.text == undisturbed.text
    tally.check(is_same, f"{model}, {request['temperature']}: {answer.code} {answer.text!r}")
    tally.note("kill to next token, beyond the load", answer.longest_gap_s - load_s, 2.0)
    tally.count(f"on {model}" if is_in_mid_stream else "too late")


def _kill_a_stream_that_wants_to_know(server: Server, tally: Tally) -> None:
    reload_model(server, SLOW)
    stream = Stream(server.port, body(8, 400, on_worker_loss="fail"))
    stream.wait_chunks(5)
    pid = worker_pid(server)
    killed_at = time.monotonic()
    kill(pid)
    answer = stream.result()
    tally.check(answer.code == "worker_lost", f"answered {answer.code!r}")
    tally.check(expected(8, 400).startswith(answer.text), "the text so far is wrong")
    tally.note("kill to error", answer.ended_at - killed_at, 2.0)


# F2 and F8.


def frozen_machine(rig: Rig, rounds: int) -> Result:
    """Worker and supervisor are frozen; another supervisor takes over; the first resumes."""
    tally = Tally()
    for _ in range(rounds):
        with running_server() as server:
            server.load("fake-50ms")
            _freeze_and_thaw(server, tally)
            tally.rounds += 1
    return tally.result()


def _freeze_and_thaw(server: Server, tally: Tally) -> None:
    stream = Stream(server.port, body(8, 480))
    stream.wait_chunks(5)
    first, pid = server.processes["workers"], worker_pid(server)
    server.start("second", "workers.supervision.supervisor")
    kill(first.pid, signal.SIGSTOP)
    kill(pid, signal.SIGSTOP)
    start, seen = time.monotonic(), stream.answer.num_chunks
    wait_until(lambda: not server.is_ready(), "/health/ready answers 503", 30)
    tally.note("until /health/ready answers 503", time.monotonic() - start, 10.0)
    wait_until(lambda: stream.answer.num_chunks > seen + 5, "the stream continues", 30)
    tally.note("until the stream continues", time.monotonic() - start, 15.0)
    kill(pid, signal.SIGCONT)
    kill(first.pid, signal.SIGCONT)
    answer = stream.result(90)
    tally.check(is_exact(answer, 8, 480), f"the stream ended {answer.code!r}, {len(answer.text)}")
    _check_fence(server, answer.job_id, tally)
    wait_until(lambda: not is_running(pid), "the resumed worker ends", 15)


def _check_fence(server: Server, job_id: str, tally: Tally) -> None:
    with direct_client(server.redis_url) as redis:
        events = read_log(redis, job_id)
    tally.check([e.seq for e in events] == list(range(1, len(events) + 1)), "gaps in the log")
    tally.check([e.attempt for e in events] == sorted(e.attempt for e in events), "attempts mixed")
    tally.check(sum(event.is_terminal for event in events) == 1, "not one terminal event")


# F3.


def killed_while_loading(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with running_server() as server:
        for _ in range(rounds):
            _kill_a_load(rig, server, tally)
            tally.rounds += 1
    return tally.result()


def _kill_a_load(rig: Rig, server: Server, tally: Tally) -> None:
    server.post("/v1/internal/model/load", {"llm_model_name": "demo.gguf", "background": True})
    jobs = [submit(server, body(8, 4)) for _ in range(3)]
    pid = wait_until(lambda: next(iter(workers_of(server)), 0), "a worker")
    time.sleep(rig.random.uniform(0, 0.8))
    kill(pid)
    ended = [wait_ended(server, job_id) for job_id in jobs]
    tally.check(all(found["status"] == "finished" for found in ended), f"{ended}")
    starts = [found["started_at"] for found in ended]
    tally.check(starts == sorted(starts), "out of order")
    # If the jobs ended before the kill, the worker is restarting.
    wait_until(lambda: workers_of(server), "a worker again")
    tally.check(len(workers_of(server)) == 1, f"{len(workers_of(server))} workers")
    server.unload()


# F4.


_TAKEN = re.compile(rb"\*3\r\n\$\d+\r\n(chat)?cmpl-")  # a take's reply


def killed_before_the_start(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with remote_server() as remote:
        for _ in range(rounds):
            _kill_at_the_move(remote, tally)
            tally.rounds += 1
    return tally.result()


def _kill_at_the_move(remote: Remote, tally: Tally) -> None:
    server = remote.server
    reload_model(server, "fake")
    pid, killed_at = worker_pid(server), 0.0

    def kill_at_move(exchange: Exchange) -> bool:
        nonlocal killed_at
        is_taken = exchange.name == b"EVALSHA" and _TAKEN.match(exchange.reply) is not None
        if is_taken and not killed_at:
            killed_at = time.monotonic()
            kill(pid)
            return True
        return False

    remote.proxy.watch(kill_at_move)
    stream = Stream(server.port, body(8, 16))
    answer = stream.result()
    remote.proxy.watch(None)
    tally.check(killed_at > 0, "nothing was killed")
    tally.check(is_exact(answer, 8, 16), f"ended {answer.code!r} {answer.text!r}")
    tally.note("kill to first token", answer.first_at - killed_at, 3.0)
    wait_until(lambda: not remote.direct.llen("rq:queue:mgs-gen-0:intermediate"), "none stranded")


# F5.


def standing_still(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with running_server(MGS_STALL_S="3") as server:
        for _ in range(rounds):
            reload_model(server, "fake")
            start = time.monotonic()
            (answer,) = read_all(server.port, [body(prompt="<<stall>>")])
            tally.check(answer.code == "job_timeout", f"answered {answer.code!r}")
            tally.note("until the error, with a stall time of 3 s", time.monotonic() - start, 5.0)
            (after,) = read_all(server.port, [body(8, 16)])
            tally.check(is_exact(after, 8, 16), f"then {after.code!r}")
            tally.rounds += 1
    return tally.result()


# F6.


def stopped_in_prefill(rig: Rig, rounds: int) -> Result:
    """A step of prefill takes 0.2 s here, the whole prompt 3 s."""
    tally = Tally()
    with rig.server("fake-200ms") as server:
        for _ in range(rounds):
            job_id = submit(server, body(7600, 16))
            _wait_running(server, job_id)
            time.sleep(rig.random.uniform(0, 1.0))
            start = time.monotonic()
            httpx.delete(f"{server.url}/v1/jobs/{job_id}", timeout=10)
            found = wait_ended(server, job_id)
            tally.note("stop to end", time.monotonic() - start, 1.0)
            tally.check(found["status"] == "cancelled", str(found["status"]))
            tally.rounds += 1
    return tally.result()


def _wait_running(server: Server, job_id: str) -> None:
    wait_until(lambda: job(server, job_id)["status"] == "running", f"{job_id} runs")


# F7.


def longer_than_its_lease(rig: Rig, rounds: int) -> Result:
    """A lease is 30 s; the registry is counted every second, as ``rq info`` does."""
    tally = Tally()
    with rig.server("fake-300ms") as server, direct_client(server.redis_url) as redis:
        stream = Stream(server.port, body(8, min(480, 20 * rounds)))
        stream.wait_chunks(1)
        start = time.monotonic()
        while stream.is_open:
            registry = StartedJobRegistry("mgs-gen-0", redis)
            num_running = registry.count
            tally.check(num_running == 1 or not stream.is_open, f"{num_running} listed as running")
            time.sleep(1.0)
        answer = stream.result()
        tally.check(is_exact(answer, 8, min(480, 20 * rounds)), f"ended {answer.code!r}")
        attempts = {event.attempt for event in read_log(redis, answer.job_id)}
        tally.check(attempts == {1}, f"attempts {attempts}")
        tally.rounds = 1
    return tally.result(f"ran {time.monotonic() - start:.0f} s")


# F10.


def malformed_commands(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with rig.server("fake-20ms") as server, direct_client(server.redis_url) as redis:
        for _ in range(rounds):
            job_id = submit(server, body(8, 480))
            _wait_running(server, job_id)
            (name,) = redis.smembers("rq:workers:mgs-gen-0")
            channel = f"rq:pubsub:{name.decode().removeprefix('rq:worker:')}"
            for number in range(1000):
                redis.publish(channel, _NONSENSE[number % len(_NONSENSE)])
            start = time.monotonic()
            stop = {"command": "stop-job", "job_id": job_id}
            redis.publish(channel, json.dumps(stop))
            found = wait_ended(server, job_id)
            tally.note("stop to end", time.monotonic() - start, 1.0)
            tally.check(found["status"] == "cancelled", str(found["status"]))
            tally.rounds += 1
    return tally.result()


_NONSENSE: tuple[bytes, ...] = (
    b"not json",
    b"[]",
    b"{}",
    b"null",
    b"\xff\xfe",
    b"[" * 5000,
    b'{"command": 7}',
    b'{"command": "stop-job"}',
    b'{"command": "stop-job", "job_id": {}}',
    b'{"command": "shutdown"}',
    b"x" * 100_000,
)


# F11.


def cannot_load(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with running_server() as server:
        models = server.folder / "models"
        (models / "cut.gguf").write_bytes((models / "demo.gguf").read_bytes()[:2000])
        (models / "hollow").mkdir()
        (models / "hollow" / "config.json").write_text('{"model_type": "llama"}')
        for number in range(rounds):
            name = ("cut.gguf", "hollow")[number % 2]
            start = time.monotonic()
            answer = server.post("/v1/internal/model/load", {"llm_model_name": name})
            tally.note(f"until the error ({name})", time.monotonic() - start, 5.0)
            code = answer.json().get("error", {}).get("code")
            tally.check(code in ("model_load_failed", "invalid_model"), f"{name}: {answer.text}")
            tally.check(server.processes_by_id() == {}, "it is still listed")
            tally.rounds += 1
        time.sleep(2.5)
        tally.check(workers_of(server) == [], "the load is repeated")
    return tally.result()


# F12.


def load_cycles(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with running_server() as server, direct_client(server.redis_url) as redis:
        for number in range(3):
            _cycle(server, tally, number)
        _widen_pools(server)
        before = _footprint(server, redis)
        for number in range(rounds):
            _cycle(server, tally, number)
            tally.rounds += 1
        after = _footprint(server, redis)
        for name, value in after.items():
            if name.endswith("MB"):
                drift = 100 * (value / before[name] - 1)
                tally.note(f"drift of {name}", drift, 5.0 if rounds >= 20 else 25.0, "%")
            else:
                tally.note(f"more {name}", value - before[name], 0, "")
    return tally.result()


def _widen_pools(server: Server) -> None:
    """Make the API open all connections that it keeps, by concurrent requests."""
    server.load("fake")
    read_all(server.port, [body(8, 8)] * 32)
    server.unload()


def _cycle(server: Server, tally: Tally, number: int) -> None:
    model = ("fake", "demo.gguf", "demo")[number % 3]
    server.load(model)
    pid = worker_pid(server)
    answer = server.post("/v1/completions", {"prompt": "a b c", "max_tokens": 4})
    tally.check(answer.status_code == 200, answer.text)
    start = time.monotonic()
    server.unload()
    wait_until(lambda: not psutil.pid_exists(pid), "the process has ended")
    tally.note("unload", time.monotonic() - start, 5.0)


def _footprint(server: Server, redis: Any) -> dict[str, float]:
    """The figures that must not grow. Keys of jobs are excluded, as they expire."""
    found: dict[str, float] = {}
    for name in ("web", "workers"):
        pid = server.processes[name].pid
        # A sample may be taken just before a connection or a child's pipe is closed.
        found[f"{name} descriptors"] = min(num_fds(pid) for _ in _looks(2.0))
        found[f"{name} MB"] = rss_mb(pid)
    family = psutil.Process(server.processes["workers"].pid).children(recursive=True)
    found["processes and zombies"] = len(family)
    lasting = [key for key in redis.keys("*") if redis.ttl(key) == -1]
    found["keys without expiry"] = len(lasting)
    return found


def _looks(seconds: float) -> Iterator[None]:
    """Yields several times, spread over that time."""
    for _ in range(10):
        yield
        time.sleep(seconds / 10)


# F13.


def asked_to_stop(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    for _ in range(rounds):
        with running_server() as server:
            server.load(SLOW, slots=4)
            jobs = [submit(server, body(8, 40)) for _ in range(100)]
            supervisor = server.processes["workers"]
            start = time.monotonic()
            supervisor.terminate()
            tally.check(supervisor.wait(30) == 0, "its exit status")
            tally.note("SIGTERM to exit", time.monotonic() - start, 5.0)
            server.start("workers", "workers.supervision.supervisor")
            ended = [wait_ended(server, job_id, 90) for job_id in jobs]
            lost = [found for found in ended if text_of(found) != expected(8, 40)]
            tally.check(not lost, f"{len(lost)} lost: {lost[:1]}")
            tally.rounds += 1
    return tally.result()


# F14.


def stopped_at_random(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    jobs: list[str] = []
    with remote_server() as remote:
        server = remote.server
        server.load("fake")
        remote.proxy.delay(0.025)
        for _ in range(rounds):
            pid = wait_worker(server)
            until = time.monotonic() + rig.random.uniform(0.1, 0.5)
            while time.monotonic() < until:
                jobs.append(submit(server, body(8, 4)))
            kill(pid, signal.SIGTERM)
            jobs += [submit(server, body(8, 4)) for _ in range(3)]
            wait_gone(pid)
            tally.rounds += 1
        remote.proxy.delay(0.0)
        ended = [wait_ended(server, job_id) for job_id in jobs]
        lost = [found for found in ended if text_of(found) != expected(8, 4)]
        tally.check(not lost, f"{len(lost)} lost: {lost[:1]}")
        stranded = remote.direct.llen("rq:queue:mgs-gen-0:intermediate")
        tally.check(stranded == 0, f"{stranded} stranded")
    return tally.result(f"{len(jobs)} jobs")


# F15.


def killer_job(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with running_server() as server, direct_client(server.redis_url) as redis:
        for _ in range(rounds):
            reload_model(server, SLOW)
            neighbours = [Stream(server.port, body(8, 200)) for _ in range(3)]
            for neighbour in neighbours:
                neighbour.wait_chunks(3)
            late = Stream(server.port, body(8, 100))  # may have sent no text yet
            (killer,) = read_all(server.port, [body(prompt="<<crash>>")])
            tally.check(killer.code == "worker_lost", f"the crashing job: {killer.code!r}")
            exact = [is_exact(stream.result(), 8, 200) for stream in neighbours]
            exact.append(is_exact(late.result(), 8, 100))
            tally.check(all(exact), f"neighbours: {exact}")
            deaths = int(redis.hget(names.job_key(killer.job_id), "deaths") or 0) + 1
            tally.note("deaths", deaths, 2, "")
            (after,) = read_all(server.port, [body(8, 16)])
            tally.check(is_exact(after, 8, 16), f"then {after.code!r}")
            tally.rounds += 1
    return tally.result()


# F16.


def two_supervisors(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with running_server() as server:
        server.start("second", "workers.supervision.supervisor")
        both = [psutil.Process(server.processes[name].pid) for name in ("workers", "second")]
        for _ in range(rounds):
            answer = server.post(
                "/v1/internal/model/load", {"llm_model_name": "fake", "background": True}
            )
            job_id = answer.json()["id"]
            until = time.monotonic() + 2.0
            while time.monotonic() < until:
                tally.note("workers", len(_children(both)), 1, "")
                time.sleep(0.02)
            tally.check(wait_ended(server, job_id)["status"] == "finished", "the load")
            server.unload()
            tally.rounds += 1
    return tally.result()


def _children(parents: list[psutil.Process]) -> list[psutil.Process]:
    found = []
    for parent in parents:
        for child in parent.children():
            with suppress(psutil.NoSuchProcess):
                if "worker" in " ".join(child.cmdline()) and child.status() != "zombie":
                    found.append(child)
    return found


RUNS = {
    "F1": Run(killed_in_mid_stream, full=153, fast=1),
    "F2": Run(frozen_machine, full=3),
    "F3": Run(killed_while_loading, full=40, fast=1),
    "F4": Run(killed_before_the_start, full=60, fast=1),
    "F5": Run(standing_still, full=20, fast=1),
    "F6": Run(stopped_in_prefill, full=20, fast=1),
    "F7": Run(longer_than_its_lease, full=24),
    "F8": Run(frozen_machine, full=3),
    "F10": Run(malformed_commands, full=20, fast=1),
    "F11": Run(cannot_load, full=20, fast=2),
    "F12": Run(load_cycles, full=100, fast=2),
    "F13": Run(asked_to_stop, full=20, fast=1),
    "F14": Run(stopped_at_random, full=60, fast=1),
    "F15": Run(killer_job, full=20, fast=1),
    "F16": Run(two_supervisors, full=20),
}
