"""``mgs serve``: honcho with the Procfile; stops all its processes with SIGTERM, then SIGKILL."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from honcho.environ import parse_procfile

from jobs.embedded_redis.binary import RedisBinaryError, find_redis_binary
from jobs.platform.base import Platform
from jobs.platform.current import current_platform, launchd_job
from jobs.platform.darwin import Darwin
from jobs.settings import Settings
from jobs.stop_signal import StopSignal

_POLL_S = 1.0
_NOTE_S = 5.0  # reading the table of processes costs some ms, more where many run
# honcho loses track of its processes when a signal arrives before it has noted the start of all.
# macOS starts an interpreter for each: 2 to 3 s the first time.
_HONCHO_START_S = 5.0
_HONCHO_NOTES_S = 0.3
_STOP_EXTRA_S = 1.6
_SECOND_SIGNAL_AFTER_S = 0.5
_LOOK_S = 0.05


def project_root() -> Path:
    """The checkout's folder, independent of the working directory."""
    return Path(__file__).resolve().parents[2]


def serve(settings: Settings) -> int:
    """Run all processes until a signal or until one ends; returns the exit status."""
    procfile = project_root() / "Procfile"
    if not procfile.exists():
        print(f"mgs: {procfile} is missing: start from a checkout", file=sys.stderr)
        return 1
    if settings.redis_url is None:
        try:
            find_redis_binary()
        except RedisBinaryError as error:  # Reported once, instead of by three processes.
            print(f"mgs: {error}", file=sys.stderr)
            return 1
    _warn_of_throttling(current_platform(), launchd_job())
    with _own_foreground_group():
        return Honcho(procfile, settings.grace_s).run()


def _warn_of_throttling(system: Platform, job: str | None) -> None:
    # Here, since `mgs doctor` in a terminal cannot see what launchd does to the service.
    if isinstance(system, Darwin) and (problem := system.throttling_problem(job)):
        print(f"mgs: {problem}", file=sys.stderr, flush=True)


class Honcho:
    """honcho in its own session, so that it gets only the one SIGTERM that is sent here.

    The terminal signals every process of its group. A signal that arrives early raises an exception
    in honcho, and a closed terminal ends it without its child processes. To leave no model in
    memory, all descendants that are left are killed at the end.
    """

    def __init__(self, procfile: Path, grace_s: float) -> None:
        self._stop = StopSignal()
        self._started = time.monotonic()
        self._num_lines = len(parse_procfile(procfile.read_text()).processes)
        self._stop_wait_s = grace_s + _STOP_EXTRA_S
        self._descendants: set[psutil.Process] = set()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "honcho", "start", "-e", os.devnull, "-f", procfile],
            cwd=procfile.parent,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def run(self) -> int:
        """Run until a signal (returns 0) or until a process ends (returns its status)."""
        is_stopping = False
        note_at = 0.0
        while not is_stopping and self._process.poll() is None:
            now = time.monotonic()
            if now >= note_at:
                self._note_descendants()
                is_new = now < self._started + _HONCHO_START_S
                note_at = now + (0.0 if is_new else _NOTE_S)
            is_stopping = self._stop.wait(_POLL_S)
        if is_stopping:
            self._terminate()
        self._kill_rest()
        return 0 if is_stopping else self._process.wait()

    def _terminate(self) -> None:
        """Send SIGTERM; return when all have ended, after the grace period or a second signal."""
        signalled = time.monotonic()
        self._wait_for_lines()
        self._stop.forget()
        self._note_descendants()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGTERM)
        deadline = time.monotonic() + self._stop_wait_s
        while self._process.poll() is None and time.monotonic() < deadline:
            # make and the terminal may both pass on one Ctrl-C: that is not a second signal.
            if time.monotonic() - signalled < _SECOND_SIGNAL_AFTER_S:
                self._stop.forget()
            if self._stop.wait(_LOOK_S):
                return

    def _wait_for_lines(self) -> None:
        """Wait until honcho has started and noted all lines, or has ended."""
        deadline = self._started + _HONCHO_START_S
        is_new = time.monotonic() < deadline
        while self._process.poll() is None and time.monotonic() < deadline:
            self._note_descendants()
            # Each line is the leader of a session; nothing else that runs so early is one.
            if sum(_leads_session(process.pid) for process in self._descendants) >= self._num_lines:
                break
            time.sleep(_LOOK_S)
        if is_new:
            time.sleep(_HONCHO_NOTES_S)

    def _kill_rest(self) -> None:
        self._note_descendants()
        for process in self._descendants:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.kill()
        self._process.wait()

    def _note_descendants(self) -> None:
        # Recorded while their parents run: afterwards they have another parent.
        with contextlib.suppress(psutil.NoSuchProcess):
            self._descendants |= set(psutil.Process(self._process.pid).children(recursive=True))
        self._descendants = {process for process in self._descendants if process.is_running()}


def _leads_session(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


@contextlib.contextmanager
def _own_foreground_group() -> Iterator[None]:
    """Under make, be the terminal's foreground process group within the block.

    make would get each Ctrl-C too, report an error at the first and end at the second, while the
    server is still stopping.
    """
    group = os.getpgrp()
    try:
        is_ours = group == os.getpid() or os.tcgetpgrp(0) != group
    except OSError:  # No terminal.
        is_ours = True
    if is_ours:
        yield
        return
    for number in (
        signal.SIGTTOU,
        signal.SIGTSTP,
    ):  # make would not be suspended with this process.
        signal.signal(number, signal.SIG_IGN)
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # The terminal may be gone.
            os.tcsetpgrp(0, group)


def _environment() -> dict[str, str]:
    # The Procfile's `python` must be this interpreter, whatever the PATH of the shell is.
    environment = dict(os.environ)  # noqa: TID251
    folders = [str(Path(sys.executable).parent), environment.get("PATH", os.defpath)]
    return environment | {"PATH": os.pathsep.join(folders), "PYTHONUNBUFFERED": "1"}
