"""A worker process as the supervisor handles it: started by exec, watched, stopped."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from jobs.contract.errors import JobError
from jobs.contract.records import DesiredModel, WorkerStatus
from jobs.storage import names
from workers.exits import ExitCode
from workers.supervision.environment import worker_environment

log = logging.getLogger(__name__)


class Reservation(NamedTuple):
    """Memory set aside for a worker, in bytes, and the share that it keeps to; 0: no limit."""

    num_bytes: int = 0
    share_bytes: int = 0


class Child:
    """A started worker.

    It has its own output pipe, so that an orphan cannot keep the supervisor's open, and a lifeline:
    a pipe that closes when the supervisor dies. ``on_exit(child)`` is called once, from a thread,
    when the process has ended.
    """

    def __init__(
        self,
        slug: str,
        desired: DesiredModel,
        owner: str,
        on_exit: Callable[[Child], None],
        reservation: Reservation | None = None,
    ) -> None:
        self.slug = slug
        self.reservation = reservation or Reservation()
        self.is_closed = False  # it takes no further job and parks when its jobs have ended
        self._owner = owner
        self.desired = desired
        self.token = secrets.token_hex(4)
        self.started_at = time.monotonic()
        self._term_at: float | None = None
        self._kill_at: float | None = None
        self._has_signalled = False
        self.killed_for: JobError | None = None
        self.last_status: WorkerStatus | None = None
        self.suspects: set[str] | None = None
        lifeline_read, self._lifeline = os.pipe()
        try:
            self._process = self._spawn(lifeline_read)
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(lifeline_read)
        threading.Thread(target=self._relay, name=f"relay-{slug}", daemon=True).start()
        threading.Thread(target=self._wait, args=(on_exit,), daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, ``-N`` for signal N, ``None`` while it runs."""
        return self._process.poll()

    @property
    def worker_names(self) -> list[str]:
        """RQ names of its consumers."""
        return names.worker_names(self.slug, self.token)

    @property
    def is_running(self) -> bool:
        """Whether the process has neither ended nor been told to stop."""
        return self.exit_code is None and self._term_at is None

    @property
    def is_leaving(self) -> bool:
        """Whether it is closed, or has been told to stop."""
        return self.is_closed or self._term_at is not None

    def stop(self, grace_s: float, *, after_s: float = 0.0) -> None:
        """Schedule SIGTERM in ``after_s`` and SIGKILL ``grace_s`` later; ``enforce`` sends them."""
        if self._term_at is None:
            self._term_at = time.monotonic() + after_s
            self._kill_at = self._term_at + grace_s
            self.enforce()

    def enforce(self) -> None:
        """Send the signals that are due."""
        now = time.monotonic()
        if self._kill_at is not None and now >= self._kill_at:
            log.warning("worker does not stop, killing it", extra={"pid": self.pid})
            self._signal(signal.SIGKILL)
        elif self._term_at is not None and now >= self._term_at and not self._has_signalled:
            self._has_signalled = True
            self._signal(signal.SIGTERM)

    def kill(self, reason: JobError) -> None:
        """Send SIGKILL. ``killed_for`` keeps the reason."""
        log.error("killing worker", extra={"pid": self.pid, "why": reason.message})
        self.killed_for = reason
        self._signal(signal.SIGKILL)

    def _spawn(self, lifeline: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "workers", "--model-id", self.desired.model_id]
        command += ["--token", self.token, "--uid", self.desired.uid]
        command += ["--load-job", self.desired.load_job, "--owner", self._owner]
        command += ["--lifeline", str(lifeline)]
        if self.reservation.share_bytes:
            command += ["--memory-bytes", str(self.reservation.share_bytes)]
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(lifeline,),
            start_new_session=True,  # the supervisor passes on signals to the terminal's group
            env=worker_environment(),
        )

    def _relay(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                text = line.decode(errors="replace").rstrip()
                print(f"[{self.desired.model_id}] {text}", flush=True)

    def _wait(self, on_exit: Callable[[Child], None]) -> None:
        self._process.wait()
        try:
            os.close(self._lifeline)
        finally:
            on_exit(self)

    def _signal(self, signum: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signum)


def describe_exit(code: int) -> str:
    """An exit code as text."""
    if code == ExitCode.DEVICE_LOST:
        return "the GPU failed"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
