"""The system under test: a complete server as processes, or one with a faulty network to Redis."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
from redis import Redis

from jobs.storage.connection import SyncRedis, connect
from tests.helpers.private_redis import PrivateRedis, private_redis
from tests.helpers.processes import is_running
from tests.helpers.server import Server, make_server
from tests.helpers.tcp_proxy import TcpProxy, tcp_proxy
from tests.helpers.waiting import wait_until
from tests.world.talkers import TALKERS, Talker

SEED = 20260


class Rig:
    """One per run; ``server`` is shared by the faults that leave it unchanged."""

    def __init__(self, soak_s: float = 30.0) -> None:
        self.soak_s = soak_s
        self.random = random.Random(SEED)
        self._stack = contextlib.ExitStack()
        self._server: Server | None = None

    @contextmanager
    def server(self, model: str | Talker | None = "fake", **options: Any) -> Iterator[Server]:
        """The shared server, with one model loaded in the block; started at its first use."""
        if self._server is None or not self._server.is_ready():
            self._server = self._stack.enter_context(
                running_server(MGS_MAX_QUEUED_PER_MODEL="20000")
            )
        if model is not None:
            self._server.load(named(self._server, model), **options)
        try:
            yield self._server
        finally:
            with contextlib.suppress(httpx.TransportError):
                self._server.unload_all()

    def drawn(self, count: int) -> list[Talker]:
        """Models of the world: templates, vocabularies and engines."""
        return self.random.sample(TALKERS, count)

    def close(self) -> None:
        self._stack.close()


def named(server: Server, model: str | Talker) -> str:
    """The model's name; one of the world is written for the server."""
    if isinstance(model, str):
        return model
    model.write(server.folder / "models")
    return model.name


@contextmanager
def running_server(**env: str) -> Iterator[Server]:
    """A separate server; its processes are ended after the block."""
    server = make_server(**env)
    try:
        server.start_all()
        yield server
    finally:
        stop_or_kill(server)
        shutil.rmtree(server.folder, ignore_errors=True)


def stop_or_kill(server: Server) -> None:
    """End all its processes, in whatever state they are."""
    for process in server.processes.values():
        with contextlib.suppress(ProcessLookupError):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
    with contextlib.suppress(subprocess.TimeoutExpired, psutil.NoSuchProcess):
        server.stop()
    for process in server.processes.values():
        if process.poll() is None:
            process.kill()
        process.wait(10)


@dataclass
class Remote:
    """A server whose Redis is behind a network that can fail."""

    server: Server
    redis: PrivateRedis
    proxy: TcpProxy
    direct: SyncRedis

    def redis_pid(self) -> int:
        return int(self.direct.info("server")["process_id"])


@contextmanager
def remote_server(redis_fsync: str = "always", **env: str) -> Iterator[Remote]:
    """A server whose processes use the test's Redis through the test's proxy."""
    with (
        private_redis(is_kept=True, fsync=redis_fsync) as redis,
        tcp_proxy(redis.socket) as proxy,
        direct_client(redis.url) as direct,
        running_server(REDIS_URL=proxy.url, **env) as server,
    ):
        try:
            yield Remote(server, redis, proxy, direct)
        finally:
            proxy.watch(None)
            proxy.accept()
            proxy.release_data()
            proxy.delay(0.0)


@contextmanager
def direct_client(url: str) -> Iterator[SyncRedis]:
    client = connect(url, retries=8)
    try:
        yield client
    finally:
        client.close()


def embedded_redis(server: Server) -> Redis:
    return Redis.from_url(server.redis_url, protocol=2)


# Facts about processes.


def worker_pid(server: Server, model_id: str = "0") -> int:
    """The process id of a loaded model's worker, as the product reports it."""
    return int(server.processes_by_id()[model_id]["process_id"])


def wait_worker(server: Server, other_than: int = 0, model_id: str = "0") -> int:
    """The process id of a ready worker other than ``other_than``."""

    def ready() -> int:
        with contextlib.suppress(httpx.TransportError):
            entry = server.processes_by_id().get(model_id, {})
            pid = int(entry.get("process_id") or 0)
            return pid if pid != other_than and server.is_ready() else 0
        return 0

    return wait_until(ready, "a worker is ready", 40.0)


def workers_of(server: Server) -> list[int]:
    """Live worker processes of the server's supervisor."""
    found = []
    for child in psutil.Process(server.processes["workers"].pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE:
                found.append(child.pid)
    return found


def wait_gone(pid: int) -> None:
    wait_until(lambda: not is_running(pid), f"process {pid} has ended", 30.0)


def num_fds(pid: int) -> int:
    return psutil.Process(pid).num_fds()


def rss_mb(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / 2**20


def kill(pid: int, signum: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


def job(server: Server, job_id: str) -> dict[str, Any]:
    """The job as the API returns it."""
    # Without TLS certificates, which take longer to load than the request.
    return dict(httpx.get(f"{server.url}/v1/jobs/{job_id}", timeout=30, verify=False).json())


def submit(
    server: Server, request: dict[str, Any], path: str = "/v1/completions", model_id: str = "0"
) -> str:
    """Submit a background job; returns its id."""
    background = {**request, "stream": False, "background": True}
    answer = server.post(path, background, model_id, verify=False)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def wait_ended(server: Server, job_id: str, timeout_s: float = 60.0) -> dict[str, Any]:
    """The job, once it has ended; the API may be unavailable meanwhile."""

    def ended() -> dict[str, Any] | None:
        with contextlib.suppress(httpx.TransportError):
            found = job(server, job_id)
            if found.get("status") in ("finished", "failed", "cancelled"):
                return found
        return None

    found = wait_until(ended, f"job {job_id} ends", timeout_s)
    assert found is not None
    return found


def text_of(found: dict[str, Any]) -> str:
    """The text of a finished completion job."""
    result = found.get("result") or {}
    return "".join(str(choice.get("text", "")) for choice in result.get("choices", []))
