"""A supervisor process with its workers in its own session, ended with the test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.helpers.driver import Driver
from tests.helpers.processes import is_running
from tests.helpers.samples import settings_for
from tests.helpers.waiting import wait_until
from workers.supervision.supervisor import Supervisor

ROOT = Path(__file__).resolve().parents[2]


class Supervised:
    """Supervisors on one Redis; at the end, each process that they started is ended by its id."""

    def __init__(self, redis_url: str, folder: Path, **env: str) -> None:
        self.driver = Driver(redis_url, folder)
        self.log = folder / "supervisor.log"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pids: set[int] = set()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MGS_", "REDIS_"))}
        self._env = {
            **kept,
            "REDIS_URL": redis_url,
            "MGS_FAKE_ENGINE": "1",
            "MGS_STATE_DIR": str(folder / "state"),
            "MGS_MODELS_DIR": str(folder / "models"),
            "MGS_GRACE_S": "0.5",
            "PYTHONPATH": str(ROOT),
            **env,
        }

    def start(self) -> subprocess.Popen[bytes]:
        """Start a supervisor; returns after its first heartbeat."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "workers.supervision.supervisor"],
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        wait_until(lambda: self._heartbeats(process.pid), "the supervisor sends heartbeats")
        return process

    @property
    def supervisor_pid(self) -> int:
        """Of the last one started."""
        return self._processes[-1].pid

    def _heartbeats(self, pid: int) -> bool:
        return pid in [node.pid for node in self.driver.desired_models.nodes()]

    def worker_pids(self) -> list[int]:
        """Live processes that a supervisor of this fixture has started."""
        for process in self._processes:
            try:
                children = psutil.Process(process.pid).children(recursive=True)
            except psutil.NoSuchProcess:
                continue
            self._pids |= {child.pid for child in children}
        return [pid for pid in self._pids if is_running(pid)]

    def stop(self) -> None:
        """SIGTERM, then SIGKILL; fails if a process had to be killed."""
        for process in self._processes:
            if process.poll() is None:
                self.worker_pids()
                process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        left = self.worker_pids()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        self.driver.close()
        assert not left, f"workers outlived their supervisor:\n{self.log.read_text()}"


@contextmanager
def supervised(redis_url: str, folder: Path, **env: str) -> Iterator[Supervised]:
    """One running supervisor without a loaded model."""
    running = Supervised(redis_url, folder, **env)
    try:
        running.start()
        yield running
    except BaseException:
        if running.log.exists():
            print(running.log.read_text())
        raise
    finally:
        running.stop()


def environment(redis_url: str, folder: Path) -> dict[str, str]:
    """What a worker process reads its settings from, as those of ``settings_for``."""
    settings = settings_for(redis_url, folder)
    return {
        "REDIS_URL": redis_url,
        "MGS_FAKE_ENGINE": "1",
        "MGS_STATE_DIR": str(settings.state_dir),
        "MGS_MODELS_DIR": str(settings.models_dir),
        "PYTHONPATH": str(ROOT),
    }


@contextmanager
def supervisor_here(
    redis_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A supervisor in a thread of the test's process."""
    for name, value in environment(redis_url, folder).items():
        monkeypatch.setenv(name, value)
    supervisor = Supervisor(settings_for(redis_url, folder))
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield
    finally:
        supervisor.stop()
        thread.join(20)
    assert not thread.is_alive()
