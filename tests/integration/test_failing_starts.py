"""Workers that cannot be started, or find nothing to load."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.contract.events import EventKind
from jobs.contract.records import DesiredModel
from jobs.contract.requests import LoadRequest
from jobs.storage import names
from jobs.storage.connection import connect
from tests.helpers.driver import Driver
from tests.helpers.private_redis import private_redis
from tests.helpers.supervised import ROOT, Supervised, environment, supervisor_here
from tests.helpers.waiting import wait_until
from workers.exits import ExitCode
from workers.supervision.worker_process import Child

DESIRED = DesiredModel("0", "uid", LoadRequest("fake", "fake"), "load-1", 1.0)


class FailingSpawn:
    """The system refuses new processes as long as it is told to; others than workers may start."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, num_failures: int) -> None:
        self.num_tries = 0
        self._num_failures = num_failures
        self._popen: Callable[..., Any] = subprocess.Popen
        monkeypatch.setattr(subprocess, "Popen", self)

    def __call__(self, command: Any, **kwargs: Any) -> Any:
        if "workers" in command:
            self.num_tries += 1
            if self.num_tries <= self._num_failures:
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return self._popen(command, **kwargs)


def num_open_files() -> int:
    return psutil.Process().num_fds()


def test_a_start_that_fails_leaks_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    spawn = FailingSpawn(monkeypatch, num_failures=50)
    before = num_open_files()
    exits: list[Child] = []
    for _ in range(50):
        with pytest.raises(OSError, match="unavailable"):
            Child("0", DESIRED, "11|aa", exits.append)
    assert spawn.num_tries == 50
    assert num_open_files() == before
    assert exits == []


def test_a_worker_that_has_ended_leaves_no_file(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(redis_url, tmp_path).items():
        monkeypatch.setenv(name, value)
    before, ended = num_open_files(), threading.Event()
    child = Child("0", DESIRED, "11|aa", lambda _: ended.set())
    assert ended.wait(60)
    assert child.exit_code == ExitCode.NOTHING_TO_LOAD
    wait_until(lambda: num_open_files() == before, "its output is read to the end, and closed")


def test_a_supervisor_tries_again_and_loads_when_the_system_lets_it(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn = FailingSpawn(monkeypatch, num_failures=3)
    driver = Driver(redis_url, tmp_path)
    with supervisor_here(redis_url, tmp_path, monkeypatch):
        desired = driver.load()
        assert driver.wait_ended(desired.load_job)[-1].kind is EventKind.FINISHED
        driver.wait_ready()
        assert spawn.num_tries == 4
        assert [node.crashes for node in driver.desired_models.nodes()] == [{}], "nothing has died"
    driver.close()


def test_a_model_that_cannot_be_started_keeps_no_other_waiting_and_unloads(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is still wanted, and can be given up like any other."""
    popen, refused = subprocess.Popen, []

    def refuse_zero(command: Any, **kwargs: Any) -> Any:
        if "workers" in command and command[command.index("--model-id") + 1] == "0":
            refused.append(command)
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return popen(command, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", refuse_zero)
    driver = Driver(redis_url, tmp_path)
    with supervisor_here(redis_url, tmp_path, monkeypatch):
        desired = driver.load()
        wait_until(lambda: refused, "it was tried")
        driver.load_ready(model_id="1")
        unload = driver.unload()
        assert driver.wait_ended(unload)[-1].kind is EventKind.FINISHED
        assert driver.wait_ended(desired.load_job)[-1].error.code == "model_unloaded"
    driver.close()


# Nothing to load.


def start_worker(
    redis_url: str, folder: Path, load_job: str, output: int | None = None
) -> subprocess.Popen[bytes]:
    """A worker without a supervisor."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MGS_", "REDIS_"))}
    env = kept | environment(redis_url, folder)
    command = [sys.executable, "-m", "workers", "--model-id", "0", "--token", "aa"]
    command += ["--load-job", load_job, "--owner", "11|aa"]
    return subprocess.Popen(command, env=env, cwd=ROOT, stdout=output, stderr=output)


@pytest.mark.parametrize("loss", ["never was", "has ended"])
def test_a_worker_without_a_load_job_says_so_and_ends(
    redis_url: str, tmp_path: Path, loss: str
) -> None:
    driver = Driver(redis_url, tmp_path)
    load_job = "load-none"
    if loss == "has ended":
        load_job = driver.submit(LoadRequest("fake", "fake"))
        driver.store.cancel(load_job, "enough")
    assert start_worker(redis_url, tmp_path, load_job).wait(60) == ExitCode.NOTHING_TO_LOAD
    driver.close()


def test_a_worker_that_starts_while_redis_is_away_loads_when_it_is_back(tmp_path: Path) -> None:
    """A death would count against the model, which might be given up."""
    with private_redis(is_kept=True) as server:
        driver = Driver(server.url, tmp_path)
        load_job = driver.submit(LoadRequest("fake", "fake"))
        server.kill()
        said = tmp_path / "worker.log"
        with said.open("wb") as output:
            worker = start_worker(server.url, tmp_path, load_job, output.fileno())
        try:
            wait_until(lambda: "redis unavailable" in said.read_text(), "it has looked for Redis")
            server.start()
            assert driver.wait_ended(load_job)[-1].kind is EventKind.FINISHED
            assert worker.poll() is None
        finally:
            worker.kill()
            worker.wait(10)
            driver.close()


@pytest.mark.parametrize("loss", ["cancelled", "lost with its record"])
def test_a_worker_whose_load_job_is_gone_is_started_again_with_another(
    running: Supervised, loss: str
) -> None:
    driver = running.driver
    desired = driver.load()
    (pid,) = wait_until(running.worker_pids, "a worker process is there")
    os.kill(pid, signal.SIGSTOP)
    if loss == "cancelled":
        driver.store.cancel(desired.load_job, "enough")
    else:
        with connect(driver.settings.effective_redis_url) as redis:
            redis.delete(driver.store.queue(names.control_queue("0")).key)
            redis.delete(names.job_key(desired.load_job))
    os.kill(pid, signal.SIGCONT)
    assert driver.wait_ready().pid != pid
    found = driver.desired_models.get("0")
    assert found.uid == desired.uid
    assert (found.load_job != desired.load_job) == (loss == "cancelled")
    assert [node.crashes for node in driver.desired_models.nodes()] == [{}], "that was no crash"
    assert driver.text_of(driver.generate("x" * 8, 8)) == "0000001 "
