"""``mgs serve``: whatever ends it, nothing that it started stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

_ROOT = Path(__file__).resolve().parents[2]
_GRACE_S = 0.5
_RUN = f"""
import sys
from pathlib import Path
from api.cli.serve import Honcho
sys.exit(Honcho(Path(sys.argv[1]), {_GRACE_S}).run())
"""
_OBEDIENT = "exec sleep 1000"
# The child outlives its parent, in a session of its own.
_STUBBORN = (
    "import os, signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
    "time.sleep(1000)\n"
)


class Serving:
    """A running guard over a Procfile."""

    def __init__(self, folder: Path, lines: dict[str, str]) -> None:
        procfile = folder / "Procfile"
        procfile.write_text("".join(f"{name}: {line}\n" for name, line in lines.items()))
        (folder / "stubborn.py").write_text(_STUBBORN)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(procfile)],
            cwd=_ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait_for(self, num_sleepers: int) -> list[psutil.Process]:
        """All its descendants once that many of them sleep."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = psutil.Process(self.process.pid).children(recursive=True)
            if sum(_name(process) == "sleep" for process in found) == num_sleepers:
                return found
            time.sleep(0.05)
        raise AssertionError("the lines did not start")


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    started: list[Serving] = []

    def start(**lines: str) -> Serving:
        started.append(Serving(tmp_path, lines))
        return started[-1]

    yield start
    for one in started:
        one.process.terminate()
        one.process.wait(20)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all(serving: Callable[..., Serving], number: int) -> None:
    one = serving(a=_OBEDIENT, b=_OBEDIENT)
    processes = one.wait_for(2)
    one.process.send_signal(number)
    assert one.process.wait(10) == 0
    assert _alive(processes) == []


def test_what_ignores_the_signal_is_killed_in_time(serving: Callable[..., Serving]) -> None:
    one = serving(a=_OBEDIENT, b=f"exec {sys.executable} stubborn.py")
    processes = one.wait_for(2)
    time.sleep(1.1)  # The guard looks once a second.
    started = time.monotonic()
    one.process.send_signal(signal.SIGINT)
    assert one.process.wait(10) == 0
    assert time.monotonic() - started < _GRACE_S + 2.5
    assert _alive(processes) == []


def test_a_signal_at_the_very_start_ends_all(
    serving: Callable[..., Serving], tmp_path: Path
) -> None:
    one = serving(a=_OBEDIENT, b=_OBEDIENT)
    deadline = time.monotonic() + 10
    while not (children := psutil.Process(one.process.pid).children()):
        assert time.monotonic() < deadline
    one.process.send_signal(signal.SIGINT)
    assert one.process.wait(10) == 0
    assert _alive(children) == []
    assert not [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == os.fspath(tmp_path)]


def test_a_line_that_ends_ends_all_with_its_status(serving: Callable[..., Serving]) -> None:
    one = serving(a=_OBEDIENT, b="sleep 2; exit 7")
    processes = one.wait_for(2)
    assert one.process.wait(20) == 7
    assert _alive(processes) == []


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""
