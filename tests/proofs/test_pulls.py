"""Downloads of models: killed at any byte, as fast as the disk, and on a disk that becomes full."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.faults.rig import running_server, wait_ended
from tests.helpers.fake_hub import FakeHub, Handler, HeldHub, HubFile, fake_hub, gguf_files
from tests.helpers.server import Server
from tests.helpers.waiting import wait_until
from tests.proofs.registry import Result, Tally, proof

REPO = "org/tiny"
SIZE = 24_000_000
LEAST = 1_000_000
_PULL = "/v1/internal/model/pull"


@contextlib.contextmanager
def pulling_server(**env: str) -> Iterator[tuple[Server, FakeHub]]:
    with fake_hub() as hub, running_server(HF_ENDPOINT=hub.url, **env) as server:
        yield server, hub


def start(server: Server, model: str = REPO, **fields: Any) -> str:
    body = {"model": model, "force": True, "background": True, **fields}
    answer = server.post(_PULL, body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def end_of(server: Server, job: str) -> dict[str, Any]:
    return wait_ended(server, job)


def models_of(server: Server) -> Path:
    return Path(server.env["MGS_MODELS_DIR"])


def pull_process(server: Server) -> psutil.Process | None:
    """The process of the running pull: the supervisor has no other child."""
    children = psutil.Process(server.processes["workers"].pid).children()
    return children[0] if children else None


def partial_size(server: Server) -> int:
    total = 0
    for path in models_of(server).glob(f".pull/*/files/{HeldHub.FILE}*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


@proof(
    "pull-killed",
    goal="each pull is whole and verified, or ends with a named error; nothing half-made is "
    "listed; 0 restarts of a file with 1 MB",
    full=50,
)
def test_a_pull_killed_at_a_random_byte_goes_on(rounds: int) -> Result:
    tally, choice = Tally(), random.Random(7)
    with pulling_server() as (server, hub):
        for number in range(rounds):
            _kill_once(server, hub, choice, number, tally)
            hub.repos.clear()
            tally.rounds += 1
    return tally.result(f"{rounds} kills of the process or its supervisor at random bytes")


def _kill_once(
    server: Server, hub: FakeHub, choice: random.Random, number: int, tally: Tally
) -> None:
    """A pull with one kill: at a byte where the hub waits, or while the bytes come."""
    repo = f"org/tiny-{number}"
    held = HeldHub(hub, repo, SIZE)
    held.num_bytes = choice.randrange(SIZE)
    is_held = number % 2 == 0
    if not is_held:
        hub.fault = _slow(held)
    hub.seen.clear()
    job = start(server, repo)
    wait_until(lambda: partial_size(server) >= held.num_bytes, "the byte of the kill", 60)
    at = partial_size(server)
    if number % 5 == 4:
        os.kill(server.processes["workers"].pid, signal.SIGKILL)
        server.processes["workers"].wait(10)
        server.start("workers", "workers.supervision.supervisor")
    elif (process := pull_process(server)) is not None:
        process.kill()
    listed = httpx.get(f"{server.url}/v1/internal/model/list").json()["model_names"]
    tally.check(f"tiny-{number}" not in listed or not is_held, "a half-made model was listed")
    held.release()
    found = end_of(server, job)
    tally.check(found["status"] == "finished", f"{number}: {found['error']}")
    _check_content(models_of(server) / f"tiny-{number}", held.files, tally)
    starts = hub.offsets_of(HeldHub.FILE)
    tally.check(starts.count(0) <= (1 if at >= LEAST else 2), f"restarts: {starts} after {at}")


def _slow(held: HeldHub) -> Any:
    """Sends the file in pieces, so that a kill meets it while it grows."""

    def fault(handler: Handler, path: str, offset: int) -> bool:
        if path != HeldHub.FILE:
            return False
        data = held.files[path].data
        handler.send_response(206 if offset else 200)
        handler.send_header("Content-Length", str(len(data) - offset))
        if offset:
            place = f"bytes {offset}-{len(data) - 1}/{len(data)}"
            handler.send_header("Content-Range", place)
        handler.end_headers()
        for begin in range(offset, len(data), 200_000):
            handler.wfile.write(data[begin : begin + 200_000])
            time.sleep(0.005)
        return True

    return fault


def _check_content(folder: Path, files: dict[str, HubFile], tally: Tally) -> None:
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    right = {name: files[name].data for name in found if name in files}
    is_whole = {"config.json", HeldHub.FILE} <= found.keys()
    tally.check(is_whole and found == right, f"{folder.name} is not what the hub has")


@proof(
    "pull-speed",
    goal="2 GB from loopback, verified, at 200 MB/s at least with 120 MB of memory at most",
    full=3,
)
def test_a_large_file_comes_fast_and_takes_little_memory(rounds: int) -> Result:
    tally = Tally()
    slowest, most, per_cpu = float("inf"), 0.0, float("inf")
    with tempfile.TemporaryDirectory() as folder, pulling_server() as (server, hub):
        source = Path(folder) / "large"
        with source.open("wb") as file:
            for _ in range(2000):
                file.write(os.urandom(1_000_000))
        large = _KnownDigest(path=str(source), known=HubFile(path=str(source)).digest)
        for number in range(rounds):
            hub.add(f"org/large-{number}", {f"large-{number}.gguf": large})
            speed, memory, one = _timed(server, f"org/large-{number}", tally)
            slowest, most, per_cpu = min(slowest, speed), max(most, memory), min(per_cpu, one)
            server.post("/v1/internal/model/delete", {"model": f"large-{number}.gguf"})
            tally.rounds += 1
    speeds = f"slowest {slowest:.0f} MB/s, {per_cpu:.0f} MB per second of processor time"
    result = tally.result(f"{speeds}, most memory {most:.0f} MB")
    return replace(result, is_held=result.is_held and slowest >= 200 and most <= 120)


class _KnownDigest(HubFile):
    """A file whose digest is not computed again for each list of files."""

    def __init__(self, path: str, known: str) -> None:
        super().__init__(path=path)
        self._known = known

    @property
    def digest(self) -> str:
        return self._known


def _timed(server: Server, repo: str, tally: Tally) -> tuple[float, float, float]:
    """MB/s from the start of the job to its end; the process's largest resident set in MB; MB per
    second of its processor time."""
    peak, is_over = [0.0, 0.0], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.02):
            with contextlib.suppress(psutil.Error):
                if (process := pull_process(server)) is not None:
                    peak[0] = max(peak[0], process.memory_info().rss / 1e6)
                    peak[1] = sum(process.cpu_times()[:2])

    watcher = threading.Thread(target=watch)
    watcher.start()
    job = start(server, repo)
    found = end_of(server, job)
    is_over.set()
    watcher.join()
    tally.check(found["status"] == "finished", f"{found['error']}")
    return 2000 / (found["ended_at"] - found["started_at"]), peak[0], 2000 / peak[1]


@proof(
    "pull-disk-full",
    goal="a full disk ends the pull with a named error; other models and chats are unharmed; the "
    "remainder is removable, the next pull works",
    full=5,
)
def test_a_full_disk_harms_nothing_else(rounds: int) -> Result:
    tally = Tally()
    with _small_disk(64) as disk, pulling_server(MGS_MODELS_DIR=str(disk)) as (server, hub):
        hub.add("org/other", gguf_files("other.gguf", size=1_000_000))
        tally.check(end_of(server, start(server, "org/other"))["status"] == "finished", "other")
        before = (disk / "other.gguf").read_bytes()
        server.load("fake-1ms")
        for number in range(rounds):
            _fill(server, hub, number, tally)
            tally.check((disk / "other.gguf").read_bytes() == before, "another model changed")
            tally.rounds += 1
    return tally.result()


def _fill(server: Server, hub: FakeHub, number: int, tally: Tally) -> None:
    hub.add(f"org/big-{number}", gguf_files(f"big-{number}.gguf", size=80_000_000))
    hub.add(f"org/fits-{number}", gguf_files(f"fits-{number}.gguf", size=2_000_000))
    refused = server.post(_PULL, {"model": f"org/big-{number}"})
    tally.check(refused.status_code == 507, f"before the download: {refused.status_code}")
    found = end_of(server, start(server, f"org/big-{number}"))
    code = (found["error"] or {}).get("code")
    tally.check(code == "disk_full", f"the pull ended with {code}")
    tally.check(server.chat("hi", max_tokens=50).status_code == 200, "a chat beside it")
    listed = httpx.get(f"{server.url}/v1/internal/model/list").json()["model_names"]
    tally.check(f"big-{number}.gguf" not in listed, "a half-made model was listed")
    freed = server.post("/v1/internal/model/delete", {"partial": True}).json()
    tally.check(freed["freed_bytes"] > 30_000_000, f"the remainder: {freed}")
    found = end_of(server, start(server, f"org/fits-{number}"))
    tally.check(found["status"] == "finished", f"the next pull: {found['error']}")


@contextlib.contextmanager
def _small_disk(num_megabytes: int) -> Iterator[Path]:
    """A file system of that size. Linux and root only."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or not Path("/proc/mounts").exists():
        pytest.skip("needs root on Linux for a small file system")
    with tempfile.TemporaryDirectory() as folder:
        options = f"size={num_megabytes}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)
