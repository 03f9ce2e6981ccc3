"""C: clients that disconnect, freeze, reconnect, or are very slow."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from jobs.storage.connection import SyncRedis
from tests.faults.clients import Stream, body, expected, is_exact, read_all, read_stream
from tests.faults.registry import Result, Run, Tally
from tests.faults.rig import (
    Rig,
    direct_client,
    kill,
    num_fds,
    rss_mb,
    running_server,
    submit,
    wait_ended,
    workers_of,
)
from tests.helpers.server import Server
from tests.helpers.waiting import wait_until

SLOW = "fake-20ms"


def num_pending(server: Server) -> int:
    """Number of jobs that are listed as queued or running."""
    pending = 0
    for status in ("queued", "running"):
        page = httpx.get(f"{server.url}/v1/jobs", params={"status": status, "limit": 200})
        pending += sum(one["task"] == "generate" for one in page.json()["data"])
    return pending


def wait_idle(server: Server) -> float:
    """Seconds until no generation is queued or running."""
    start = time.monotonic()
    wait_until(lambda: num_pending(server) == 0, "the engine is idle", 60)
    return time.monotonic() - start


def job_channels(redis: SyncRedis) -> int:
    return len(redis.pubsub_channels("mgs:evt:*"))


@contextmanager
def nothing_left(server: Server, tally: Tally) -> Iterator[SyncRedis]:
    """After the block, check that descriptors, channels and jobs are those of before."""
    pid = server.processes["web"].pid
    with direct_client(server.redis_url) as redis:
        read_all(server.port, [body(8, 4)] * 4)  # what is opened once and kept is open now
        wait_idle(server)
        before = num_fds(pid)
        yield redis
        wait_idle(server)
        wait_until(lambda: job_channels(redis) == 0, "all subscriptions have ended")
        with contextlib.suppress(AssertionError):
            wait_until(lambda: num_fds(pid) <= before, "descriptors", 5)
        # The connection pools may have grown by the concurrent requests.
        tally.note("more descriptors", num_fds(pid) - before, 16, "")


# C1.


def close_in_mid_stream(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with rig.server(SLOW) as server, nothing_left(server, tally):
        for _ in range(rounds):
            witness = Stream(server.port, body(8, 60))
            leavers = [body(16, 400, ignore_eos=True) for _ in range(4)]
            places = [rig.random.randint(1, 20) for _ in leavers]
            asyncio.run(_leave(server.port, leavers, places))
            tally.note("close to engine idle", _until_alone(server, witness), 1.0)
            answer = witness.result()
            tally.check(is_exact(answer, 8, 60), f"the other stream: {answer.code!r}")
            tally.rounds += len(leavers)
    return tally.result()


def _until_alone(server: Server, witness: Stream) -> float:
    """Seconds until only the other stream's job is left."""
    start = time.monotonic()
    wait_until(lambda: num_pending(server) <= witness.is_open, "they are gone", 30)
    return time.monotonic() - start


async def _leave(port: int, requests: list[dict[str, Any]], places: list[int]) -> None:
    tasks = [
        read_stream(port, request, leave_after=place)
        for request, place in zip(requests, places, strict=True)
    ]
    await asyncio.gather(*tasks)


# C2.


def close_while_queued(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with rig.server(SLOW, slots=1) as server, nothing_left(server, tally) as redis:
        for _ in range(rounds):
            running = Stream(server.port, body(8, 400))
            running.wait_chunks(1)
            queued = [body(16, 50) for _ in range(10)]
            asyncio.run(_leave_after(server.port, queued, rig.random.uniform(0.2, 0.6)))
            start = time.monotonic()
            wait_until(lambda: redis.llen("rq:queue:mgs-gen-0") == 0, "the queue is empty", 30)
            tally.note("close to gone", time.monotonic() - start, 1.0)
            page = httpx.get(f"{server.url}/v1/jobs", params={"limit": len(queued)}).json()
            started = [one["id"] for one in page["data"] if one["started_at"]]
            tally.note("started", len(started), 0, "")
            kept = running.is_open
            httpx.delete(f"{server.url}/v1/jobs/{running.answer.job_id}", timeout=20)
            tally.check(kept, "the running stream has ended")
            running.result()
            tally.rounds += len(queued)
    return tally.result()


async def _leave_after(port: int, requests: list[dict[str, Any]], seconds: float) -> None:
    await asyncio.gather(*(read_stream(port, one, leave_after_s=seconds) for one in requests))


# C3.


def close_in_prefill_and_load(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with running_server() as server:
        for _ in range(rounds):
            _leave_a_load(server, tally)
            asyncio.run(_leave_after(server.port, [body(7600, 16)], rig.random.uniform(0.1, 0.9)))
            tally.note("close in prefill to idle", wait_idle(server), 1.0)
            server.unload()
            tally.rounds += 1
    return tally.result()


def _leave_a_load(server: Server, tally: Tally) -> None:
    """Three clients request the load and disconnect; it continues, once."""
    for _ in range(3):
        with contextlib.suppress(httpx.TimeoutException):
            request = {"llm_model_name": "fake-100ms"}
            httpx.post(f"{server.url}/v1/internal/model/load", json=request, timeout=0.1)
    server.load("fake-100ms")
    tally.note("workers", len(workers_of(server)), 1, "")


# C4.


def abort_next_to_prefill(rig: Rig, rounds: int) -> Result:
    """On llama.cpp: one stream is repeatedly aborted while others are in prefill."""
    tally = Tally()
    with rig.server("demo.gguf") as server:
        leaver = body(prompt="one two three four five six seven eight " * 20, max_tokens=300)
        # Here one token is far more likely than all others; else rounding may decide.
        messages = [{"role": "user", "content": "Count from 1 to 30."}]
        request = {"messages": messages, "max_tokens": 60, "temperature": 0, "stream": True}
        chat = "/v1/chat/completions"
        (undisturbed,) = read_all(server.port, [request], path=chat)
        for _ in range(rounds):
            other = Stream(server.port, request, path=chat)
            asyncio.run(_leave(server.port, [leaver] * 2, [1, 2]))
            answer = other.result(60)
            is_right = answer.is_done and answer.text == undisturbed.text
            tally.check(is_right, f"{answer.code!r} {answer.text!r}")
            tally.rounds += 1
        tally.note("idle after", wait_idle(server), 1.0)
    return tally.result()


# C5.


def stops_reading(rig: Rig, rounds: int) -> Result:
    """Clients with a small receive buffer that read the head and then stop."""
    tally = Tally()
    with running_server(MGS_SLOTS="8") as server:
        server.load("fake")
        pid = server.processes["web"].pid
        before = rss_mb(pid)
        stuck = [_open_stuck(server) for _ in range(max(2, rounds))]
        start = time.monotonic()
        while time.monotonic() - start < 35.0 and num_pending(server):
            (answer,) = read_all(server.port, [body(8, 100)])
            tally.check(is_exact(answer, 8, 100), f"others: {answer.code!r}")
            time.sleep(0.2)
        tally.note("until ended", wait_idle(server) + time.monotonic() - start, 35.0)
        tally.note("API memory per client", (rss_mb(pid) - before) / len(stuck), 2.0, "MB")
        for one in stuck:
            one.close()
        tally.rounds = len(stuck)
    return tally.result()


def _open_stuck(server: Server) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.connect(("127.0.0.1", server.port))
    request = body(8, 8000, ignore_eos=True, logprobs=5)
    data = json.dumps(request).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


# C6.


def vanishes(rig: Rig, rounds: int) -> Result:
    """A frozen client: its system still acknowledges data, but nothing reads it."""
    tally = Tally()
    with rig.server(SLOW) as server:
        for _ in range(rounds):
            code = (
                "import httpx, sys\n"
                f"with httpx.stream('POST', '{server.url}/v1/completions', timeout=600,"
                " json={'prompt': 'k', 'stream': True, 'max_tokens': 8000, 'ignore_eos': True,"
                " 'logprobs': 20}) as answer:\n"
                "    for line in answer.iter_lines():\n"
                "        print(len(line), flush=True)\n"
            )
            client = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
            assert client.stdout is not None
            client.stdout.readline()
            kill(client.pid, signal.SIGSTOP)
            try:
                start = time.monotonic()
                wait_until(lambda: num_pending(server) == 0, "it is detected", 150)
                tally.note("until detected", time.monotonic() - start, 60.0)
            finally:
                client.kill()
                client.wait()
            tally.rounds += 1
    return tally.result()


# C7, C8.


def resumes(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with rig.server("fake-10ms") as server:
        url = ""
        for number in range(rounds):
            if number % 50 == 0:
                url = f"{server.url}/v1/jobs/{submit(server, body(8, 200))}/events"
            text, last = "", None
            while not (ended := _read_some(url, last, rig.random.randint(1, 40)))[2]:
                text, last = text + ended[0], ended[1]
                tally.note("resume to first event", ended[3], 0.1)
            text += ended[0]
            tally.check(text == expected(8, 200), f"{text[-30:]!r}")
            tally.rounds += 1
    return tally.result()


def _read_some(url: str, last: str | None, count: int) -> tuple[str, str | None, bool, float]:
    """Read at most ``count`` events: text, last id, whether it ended, seconds to the first."""
    headers = {"Last-Event-ID": last} if last else {}
    text, is_over, start, first_s = "", False, time.monotonic(), 0.0
    with httpx.stream("GET", url, headers=headers, timeout=30) as answer:
        for line in answer.iter_lines():
            if line.startswith("id: "):
                last = line[4:]
            elif line.startswith("data: "):
                first_s = first_s or time.monotonic() - start
                event = json.loads(line[6:])
                text += event.get("text", "")
                is_over = event.get("kind") in ("finished", "failed", "cancelled")
                count -= 1
                if is_over or count == 0:
                    break
        else:
            is_over = True  # there were no more events
    return text, last, is_over, first_s


def bad_resumes(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    ids = ("x", "1", "1-", "-1", "9-99999", "1-99999999999999999999", "1-2-3", "\u00e9", "*", "$")
    with rig.server("fake") as server:
        job_id = submit(server, body(8, 40))
        wait_ended(server, job_id)
        for number in range(rounds):
            last = ids[number % len(ids)]
            start = time.monotonic()
            answer = httpx.get(
                f"{server.url}/v1/jobs/{job_id}/events",
                headers=[(b"Last-Event-ID", last.encode())],
                timeout=20,
            )
            tally.note("answered", time.monotonic() - start, 5.0)
            is_clean = answer.status_code in (200, 204, 400)
            tally.check(is_clean, f"{last!r}: {answer.status_code}")
            for foreign in (f"cmpl-{'0' * 32}", "..", "mgs:log", job_id[:-1]):
                found = httpx.get(f"{server.url}/v1/jobs/{foreign}/events", timeout=20)
                is_refused = found.status_code == 404 or "error" in found.text
                tally.check(is_refused, f"{foreign!r}: {found.status_code} {found.text[:80]}")
            tally.rounds += 1
    return tally.result()


# C9.


def same_load_at_once(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with rig.server(None) as server:
        for _ in range(rounds):
            answers: list[Any] = []
            threads = [threading.Thread(target=_load, args=(server, answers)) for _ in range(10)]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                tally.note("workers", len(workers_of(server)), 1, "")
                time.sleep(0.02)
            right = [answer for answer in answers if answer == {"load": "success"}]
            tally.check(len(right) == len(threads), f"{answers}")
            server.unload()
            tally.rounds += 1
    return tally.result()


def _load(server: Server, answers: list[Any]) -> None:
    answers.append(server.post("/v1/internal/model/load", {"llm_model_name": "fake"}).json())


# C10.


def slow_senders(rig: Rig, rounds: int) -> Result:
    """Headers and bodies sent at one byte a second, on ``rounds`` connections."""
    tally = Tally()
    with running_server() as server:
        server.load("fake")
        alone = [_ask(server, tally) for _ in range(20)]
        asyncio.run(_crowd(server, rounds, tally, max(alone)))
        tally.rounds = rounds
    return tally.result()


def _ask(server: Server, tally: Tally) -> float:
    start = time.monotonic()
    (answer,) = read_all(server.port, [body(8, 8)])
    tally.check(is_exact(answer, 8, 8), f"a real client: {answer.code!r}")
    return time.monotonic() - start


async def _crowd(server: Server, count: int, tally: Tally, alone_s: float) -> None:
    limit_s = 45.0 if count > 50 else 3.0
    crowd = [asyncio.create_task(_trickle(server.port, n % 2 == 0, limit_s)) for n in range(count)]
    start = time.monotonic()
    while time.monotonic() - start < limit_s - 1:
        waited = await asyncio.to_thread(_ask, server, tally)
        tally.note("a real client waits", waited / max(alone_s, 0.05), 2.0, "x")
        await asyncio.sleep(0.3)
    cut = await asyncio.gather(*crowd)
    if count > 50:
        tally.note("slow header cut", max(cut[0::2]), 10.0)
        tally.note("slow body cut", max(cut[1::2]), 30.0)


async def _trickle(port: int, is_header: bool, limit_s: float) -> float:
    """Seconds until the server has closed the connection, or the limit."""
    start = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    if not is_header:
        head += "Content-Type: application/json\r\nContent-Length: 500\r\n\r\n"
    writer.write(head.encode())
    read = asyncio.create_task(reader.read())
    try:
        while time.monotonic() - start < limit_s and not read.done():
            writer.write(b"x")
            await asyncio.wait([read], timeout=1.0)
    finally:
        read.cancel()
        writer.close()
    return time.monotonic() - start


RUNS = {
    "C1": Run(close_in_mid_stream, full=50, fast=1),
    "C2": Run(close_while_queued, full=20, fast=1),
    "C3": Run(close_in_prefill_and_load, full=100, fast=1),
    "C4": Run(abort_next_to_prefill, full=200, fast=3),
    "C5": Run(stops_reading, full=10),
    "C6": Run(vanishes, full=2),
    "C7": Run(resumes, full=1000, fast=10),
    "C8": Run(bad_resumes, full=20, fast=10),
    "C9": Run(same_load_at_once, full=20, fast=1),
    "C10": Run(slow_senders, full=500, fast=20),
}
