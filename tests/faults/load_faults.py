"""L: overload with clients, jobs and connections."""

from __future__ import annotations

import asyncio
import resource
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psutil

from jobs.storage.connection import SyncRedis
from tests.faults.clients import Answer, Stream, body, expected, is_exact, read_all, read_stream
from tests.faults.registry import Result, Run, Tally
from tests.faults.rig import (
    Rig,
    direct_client,
    job,
    rss_mb,
    running_server,
    submit,
    text_of,
    wait_ended,
    worker_pid,
)
from tests.helpers.server import Server
from tests.helpers.waiting import wait_until


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


# L1.


def many_streams(rig: Rig, rounds: int) -> Result:
    """``rounds`` concurrent streams of 400 tokens each; with a thousand, three times."""
    tally, num_tokens = Tally(), 0
    with running_server(MGS_MAX_QUEUED_PER_MODEL="20000") as server:
        server.load("fake", slots=256)
        pid = server.processes["web"].pid
        start = time.monotonic()
        for _ in range(3 if rounds >= 1000 else 1):
            answers, peak = _with_peak(pid, lambda: read_all(server.port, [body(8, 400)] * rounds))
            for answer in answers:
                tally.check(is_exact(answer, 8, 400), f"{answer.status} {answer.code!r}")
            num_tokens += sum(len(answer.text) for answer in answers)
            tally.note("API memory", peak, 300.0, "MB")
        spent_s = time.monotonic() - start
        tally.note_least("rate", num_tokens / spent_s, 5000.0, "tokens/s")
        tally.rounds = rounds
    return tally.result(f"{num_tokens} tokens in {spent_s:.0f} s")


def _with_peak(pid: int, action: Any) -> tuple[list[Answer], float]:
    """The action's result, and the peak memory of the process meanwhile."""
    peak, stop = [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            peak[0] = max(peak[0], rss_mb(pid))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        return action(), peak[0] or rss_mb(pid)
    finally:
        stop.set()
        thread.join()


# L2.


def many_jobs(rig: Rig, rounds: int) -> Result:
    """``rounds`` jobs, of which all but one are queued behind one that runs for 15 minutes."""
    tally = Tally()
    with running_server(MGS_MAX_QUEUED_PER_MODEL="20000") as server:
        server.load("fake-100ms", slots=1)
        with direct_client(server.redis_url) as redis:
            _fill(server, rounds, tally)
            num_waiting = redis.llen("rq:queue:mgs-gen-0")
            tally.check(num_waiting >= rounds - 1, f"{num_waiting} of {rounds} wait")
            _time_lists(server, tally)
            memory = redis.info("memory")["used_memory"] / 2**20
            tally.note("Redis", memory, 100.0, "MB")
            _purge(server, redis, rounds, tally)
        server.unload()
        _drain_in_order(server, min(rounds, 500), tally)
        tally.rounds = rounds
    return tally.result()


def _fill(server: Server, count: int, tally: Tally) -> None:
    request = {"prompt": "p" * 1000, "max_tokens": 7000, "ignore_eos": True, "background": True}
    spent: list[float] = []
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for _ in range(count):
            start = time.monotonic()
            answer = client.post("/v1/completions", json=request)
            spent.append(time.monotonic() - start)
            tally.check(answer.status_code == 202, answer.text)
    tally.note("enqueue p99", 1000 * percentile(spent, 0.99), 20.0, "ms")


def _time_lists(server: Server, tally: Tally) -> None:
    pages = {
        "list": "/v1/jobs?limit=200",
        "waiting": "/v1/jobs?limit=200&status=queued",
        "processes": "/management/processes",
    }
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for name, path in pages.items():
            for _ in range(5):
                start = time.monotonic()
                answer = client.get(path)
                tally.check(answer.status_code == 200, answer.text)
                tally.note(name, 1000 * (time.monotonic() - start), 200.0, "ms")
        start = time.monotonic()
        client.get("/v1/jobs?limit=200&status=failed")
        tally.note("a list that finds none", 1000 * (time.monotonic() - start), 2000.0, "ms")


def _purge(server: Server, redis: SyncRedis, count: int, tally: Tally) -> None:
    with _longest_ping(redis) as longest:
        start = time.monotonic()
        answer = server.post("/management/process/clean-up", {"timeout": 0})
        tally.note("purge", time.monotonic() - start, 5.0)
    tally.note("Redis stalled", 1000 * max(longest), 50.0, "ms")
    found = answer.json()
    ended = found["num_waiting"] + found["num_running"] if "num_waiting" in found else count
    tally.check(ended == count, f"purged {ended} of {count}: {found}")
    wait_until(lambda: redis.llen("rq:queue:mgs-gen-0") == 0, "the queue is empty")


@contextmanager
def _longest_ping(redis: SyncRedis) -> Iterator[list[float]]:
    spent, stop = [0.0], threading.Event()

    def ping() -> None:
        while not stop.wait(0.005):
            start = time.monotonic()
            redis.ping()
            spent.append(time.monotonic() - start)

    thread = threading.Thread(target=ping, daemon=True)
    thread.start()
    try:
        yield spent
    finally:
        stop.set()
        thread.join()


def _drain_in_order(server: Server, count: int, tally: Tally) -> None:
    server.load("fake", slots=1)
    jobs = [submit(server, body(8, 4)) for _ in range(count)]
    wait_ended(server, jobs[-1], 120)
    found = [job(server, job_id) for job_id in jobs]
    lost = [one for one in found if text_of(one) != expected(8, 4)]
    tally.check(not lost, f"{len(lost)} lost")
    starts = [one["started_at"] for one in found]
    tally.check(starts == sorted(starts), "not in order")


# L3, L4.


def full_queue(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with running_server(MGS_MAX_QUEUED_PER_MODEL="5") as server:
        server.load("fake-20ms", slots=1)
        for _ in range(rounds):
            first = Stream(server.port, body(8, 40))
            first.wait_chunks(1)
            queued = [submit(server, body(8, 8)) for _ in range(5)]
            for _ in range(5):
                start = time.monotonic()
                answer = server.post("/v1/completions", {"prompt": "k", "max_tokens": 1})
                tally.note("until refused", 1000 * (time.monotonic() - start), 50.0, "ms")
                is_right = answer.status_code == 429 and "retry-after" in answer.headers
                tally.check(is_right, f"{answer.status_code} {answer.text}")
            tally.check(is_exact(first.result(), 8, 40), "the running one")
            for job_id in queued:
                tally.check(text_of(wait_ended(server, job_id)) == expected(8, 8), "a queued one")
            tally.rounds += 1
    return tally.result()


def waited_too_long(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with running_server(MGS_QUEUE_TIMEOUT_S="2") as server:
        server.load("fake-20ms", slots=1)
        for _ in range(rounds):
            first = Stream(server.port, body(8, 300))
            first.wait_chunks(1)
            start = time.monotonic()
            late = [Stream(server.port, body(8, 8)) for _ in range(3)]
            for stream in late:
                answer = stream.result()
                tally.check(answer.code == "job_timeout", f"answered {answer.code!r}")
                tally.note("after the limit", answer.ended_at - start - 2.0, 1.0)
                found = job(server, answer.job_id)
                tally.check(not found["started_at"], "it has started")
            tally.check(is_exact(first.result(), 8, 300), "the running one")
            tally.rounds += 1
    return tally.result()


# L5.


def many_connects(rig: Rig, rounds: int) -> Result:
    """200 new clients a second for ``rounds`` seconds, with at most 1024 descriptors."""
    tally = Tally()
    with running_server() as server:
        server.load("fake")
        api = psutil.Process(server.processes["web"].pid)
        if hasattr(api, "rlimit"):
            api.rlimit(resource.RLIMIT_NOFILE, (1024, 1024))
        answers = asyncio.run(_burst(server.port, 200, rounds))
        wrong = [a for a in answers if a.status >= 500 and a.status != 503]
        tally.check(not wrong, f"{len(wrong)} of {len(answers)}: {wrong[:1]}")
        served = [a for a in answers if a.status == 200]
        tally.check(all(is_exact(a, 8, 8) for a in served), "a text is wrong")
        start = time.monotonic()
        wait_until(lambda: is_exact(read_all(server.port, [body(8, 8)])[0], 8, 8), "served")
        tally.note("served after", time.monotonic() - start, 5.0)
        tally.rounds = rounds
    shares = {
        name: sum(a.failure == name for a in answers) for name in {a.failure for a in answers}
    }
    shares["served"] = shares.pop("", 0)
    return tally.result(f"{len(answers)} clients: {shares}")


async def _burst(port: int, a_second: int, seconds: int) -> list[Answer]:
    tasks = []
    start = time.monotonic()
    for number in range(a_second * seconds):
        await asyncio.sleep(max(0.0, start + number / a_second - time.monotonic()))
        tasks.append(asyncio.create_task(read_stream(port, body(8, 8))))
    return list(await asyncio.gather(*tasks))


# L6.

_UNTIL_FULL = 500  # jobs: MLX's worker grows up to the 400th, its cache in pieces of all sizes


def growing(rig: Rig, rounds: int) -> Result:
    """``rounds`` jobs with long unrelated prompts, after others that fill the cache."""
    tally = Tally()
    with running_server(MGS_PROMPT_CACHE_BYTES=str(16 * 2**20)) as server:
        for model in ("demo.gguf", "demo"):
            server.load(model)
            _complete_many(server, 0, _UNTIL_FULL)
            pid = worker_pid(server)
            before = rss_mb(pid)
            _complete_many(server, _UNTIL_FULL, rounds)
            slope = (rss_mb(pid) - before) / (rounds / 100)
            tally.note(f"{model} per 100 jobs", slope, 1.0 if rounds >= 200 else 30.0, "MB")
            tally.rounds += rounds
            server.unload()
    return tally.result()


def _complete_many(server: Server, start: int, count: int) -> None:
    for first in range(start, start + count, 10):
        requests = [
            body(prompt=f"{number} " + " ".join(str(number * step) for step in range(40)))
            | {"max_tokens": 2}
            for number in range(first, min(first + 10, start + count))
        ]
        assert all(answer.is_done for answer in read_all(server.port, requests))


# L8.


def flooded_neighbour(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with running_server() as server:
        for model_id in ("a", "b", "c"):
            server.load("fake-20ms", model_id)
        alone = _first_tokens(server, rounds)
        flood = [submit_to(server, "c") for _ in range(100)]
        flooded = _first_tokens(server, rounds)
        tally.check(len(flood) == 100, "not flooded")
        more = 100 * (percentile(flooded, 0.99) / percentile(alone, 0.99) - 1)
        tally.note("p99 of the others' first token", more, 20.0, "% more")
        tally.rounds = rounds
    median = 1000 * statistics.median(alone)
    return tally.result(f"median alone {median:.0f} ms")


def submit_to(server: Server, model_id: str) -> str:
    request = {**body(8, 400), "stream": False, "background": True}
    return str(server.post("/v1/completions", request, model_id).json()["id"])


def _first_tokens(server: Server, count: int) -> list[float]:
    found = []
    for number in range(count):
        model_id = ("a", "b")[number % 2]
        (answer,) = read_all(server.port, [body(8, 4)], model_id=model_id)
        assert is_exact(answer, 8, 4), answer
        found.append(answer.first_at - answer.sent_at)
    return found


RUNS = {
    "L1": Run(many_streams, full=1000, fast=100),
    "L2": Run(many_jobs, full=10_000, fast=300),
    "L3": Run(full_queue, full=20, fast=1),
    "L4": Run(waited_too_long, full=20, fast=1),
    "L5": Run(many_connects, full=30, fast=2),
    "L6": Run(growing, full=500),
    "L8": Run(flooded_neighbour, full=200),
}
