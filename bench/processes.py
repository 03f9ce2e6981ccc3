"""Child processes of a benchmark: start, wait for readiness, measure, end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

import httpx
import psutil

from bench.measurement import BenchError

_STOP_S = 15.0
_POLL_S = 0.05
_LOG_LINES = 15


@contextlib.contextmanager
def running(
    command: list[str],
    *,
    environment: Mapping[str, str] | None = None,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with its output in a file; ended when the block ends.

    An error in the block is raised with the last lines of that output.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            env=child_environment() | dict(environment or {}),
            stdin=stdin,
            stdout=log if stdout is None else stdout,
            stderr=log,
            # Ctrl-C reaches this process only, which then ends the others in order.
            start_new_session=True,
        )
        try:
            yield process
        except BenchError as error:
            raise BenchError(
                f"{error}\nOutput of {' '.join(command)}:\n{_last_lines(log)}"
            ) from error
        finally:
            stop(process)


def child_environment() -> dict[str, str]:
    """This process' environment without settings that lead to another server or Redis."""
    return {k: v for k, v in os.environ.items() if not re.match(r"MGS_|REDIS_URL|LLAMA_", k)}


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a child process: SIGTERM, then SIGKILL."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=_STOP_S)


def wait_until_serving(
    url: str, processes: Iterable[subprocess.Popen[bytes]], timeout_s: float
) -> None:
    """Return when ``url`` answers 200; ``BenchError`` when a process ends or time is up."""
    watched = list(processes)
    deadline = time.monotonic() + timeout_s
    while not _answers(url):
        dead = [process for process in watched if process.poll() is not None]
        if dead:
            raise BenchError(f"a server ended with status {dead[0].returncode} at its start")
        if time.monotonic() > deadline:
            raise BenchError(f"{url} does not answer after {timeout_s:.0f} s")
        time.sleep(_POLL_S)


def free_port() -> int:
    """A loopback port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def resident_mb(processes: Iterable[psutil.Process]) -> float:
    """Resident memory in MB; pages shared between processes are counted for each."""
    return sum(_ask(process, lambda p: p.memory_info().rss) for process in processes) / 1e6


def cpu_s(processes: Iterable[psutil.Process]) -> float:
    """Processor time so far, in seconds."""
    return sum(_ask(process, lambda p: sum(p.cpu_times()[:2])) for process in processes)


def _ask(process: psutil.Process, question: Callable[[psutil.Process], float]) -> float:
    try:
        return question(process)
    except psutil.NoSuchProcess:  # a helper process that has ended
        return 0.0


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def _last_lines(log: IO[bytes]) -> str:
    log.seek(0)
    return b"\n".join(log.read().splitlines()[-_LOG_LINES:]).decode(errors="replace")


def python_path(root: Path) -> dict[str, str]:
    """The ``PYTHONPATH`` with which a child can import the repository's packages."""
    return {"PYTHONPATH": str(root)}
