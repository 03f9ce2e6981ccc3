"""A server of its own for a benchmark: Redis, API and supervisor on a free port."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
_MODULES = ("jobs.redis_server", "api", "workers.supervisor")
_READY_S = 30.0


@dataclass(frozen=True, slots=True)
class Instance:
    """Where the server listens."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def load(self, model: str, model_id: str = "0", **options: Any) -> None:
        answer = httpx.post(
            f"{self.url}/v1/internal/model/load",
            json={"llm_model_name": model, **options},
            headers={"X-Model-Id": model_id},
            timeout=600,
        )
        answer.raise_for_status()

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/ready", timeout=2).status_code == 200
        except httpx.TransportError:
            return False


@contextlib.contextmanager
def running_instance(models_dir: Path = ROOT / "models") -> Iterator[Instance]:
    """Start all three processes, wait until they are ready, and end them afterwards."""
    with tempfile.TemporaryDirectory(prefix="mgs-bench-") as folder:
        instance = Instance(_free_port())
        processes = [_start(module, instance, folder, models_dir) for module in _MODULES]
        try:
            _wait_ready(instance)
            yield instance
        finally:
            for process in reversed(processes):
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=15)


def _start(
    module: str, instance: Instance, folder: str, models_dir: Path
) -> subprocess.Popen[bytes]:
    kept = {k: v for k, v in os.environ.items() if not re.match(r"MGS_|REDIS_URL", k)}
    settings = {
        "MGS_PORT": str(instance.port),
        "MGS_STATE_DIR": folder,
        "MGS_MODELS_DIR": str(models_dir),
        "MGS_FAKE_ENGINE": "1",
        "MGS_LOG_LEVEL": "warning",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        [sys.executable, "-m", module],
        env={**kept, **settings},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def _wait_ready(instance: Instance) -> None:
    deadline = time.monotonic() + _READY_S
    while not instance.is_ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the server is not ready after {_READY_S} s")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
