"""Shared by all rings: a clock, and one real Redis server per run, emptied for each test that asks.

The server is always one that the run started itself, on a unix socket in a folder of its own, so
emptying it can never touch anybody's data.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
from redis import Redis
from redis.exceptions import RedisError

from jobs.embedded_redis.binary import find_redis_binary
from tests.helpers.clock import Clock

_HERE = Path(__file__).parent
_START_TIMEOUT_S = 10.0

# httpx reads the system's certificates anew for each client, which takes longer than most answers.
# Nobody needs them here: who speaks TLS does so with a certificate of the test's own.
os.environ["SSL_CERT_DIR"] = str(_HERE / "data")
os.environ.pop("SSL_CERT_FILE", None)

# How long an example takes depends on what else runs on the machine.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# The order of the folders among several processes: what takes long comes first, so that all end
# together, and what computes runs beside what waits.
_RINGS = (
    "proofs engines faults acceptance fuzz integration world explorer unit architecture".split()
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Among several processes, the files come in an order that keeps all cores busy."""
    if hasattr(config, "workerinput"):
        items.sort(key=_place)


def _place(item: pytest.Item) -> tuple[bool, int]:
    ring = item.path.relative_to(_HERE).parts[0]
    return item.get_closest_marker("slow") is None, _RINGS.index(ring) if ring in _RINGS else 0


@dataclass(frozen=True)
class RedisServer:
    """Where the run's own Redis server listens."""

    socket: Path

    @property
    def url(self) -> str:
        """URL of the server's socket, as ``REDIS_URL`` takes it."""
        return f"unix://{self.socket}?db=0"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The monotonic clock, under the test's control."""
    found = Clock()
    monkeypatch.setattr(time, "monotonic", found)
    return found


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis server without persistence that lives as long as the test run."""
    # Not tmp_path: a unix socket's path is at most 104 bytes on macOS.
    folder = Path(tempfile.mkdtemp(prefix="mgs-test-", dir="/tmp"))
    server = RedisServer(folder / "redis.sock")
    flags = f"--port 0 --unixsocket {server.socket} --unixsocketperm 700 --dir {folder}"
    command = [str(find_redis_binary().path), *flags.split(), "--save", "", "--appendonly", "no"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_until_up(server, process, folder / "log")
        yield server
    finally:
        process.terminate()
        process.wait(timeout=10)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """URL of the run's own Redis server, emptied just now."""
    with Redis.from_url(redis_server.url, protocol=2) as client:
        client.flushall()
    return redis_server.url


def _wait_until_up(server: RedisServer, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    with Redis.from_url(server.url, protocol=2) as client:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                client.ping()
            except RedisError:
                time.sleep(0.01)
            else:
                return
    pytest.fail(f"the tests' Redis server did not start:\n{log.read_text()}")
