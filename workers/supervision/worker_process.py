"""One worker process, seen from its supervisor: started by exec, watched, and ended for sure."""

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
from pathlib import Path

from jobs.contract.errors import JobError
from jobs.contract.records import DesiredModel, WorkerStatus
from jobs.storage import names

log = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parents[2]

# For GCC's OpenMP, with which llama.cpp computes: a thread that waits for the others would keep its
# core busy for milliseconds, which others need: Redis and the API between two calls, and other
# models. Within a call it waits about so long. Two models at once on two cores: 65 instead of 44
# tokens/s; one alone is as fast as before.
_SPINS = "2000"
# For OpenBLAS, with which NumPy computes for MLX: its threads would take their core from others for
# tens of milliseconds before they sleep. What they wait now is 2 to the power of this in cycles,
# one or two milliseconds. Who sleeps after each product is not better: on a virtual machine that
# had been idle, products then waited for ticks of the clock, 4 to 12 ms each.
_BLAS_WAIT = "22"
# For the GNU C library: ask for huge pages for what is large, which are weights and KV cache. Where
# the system gives them, a step of one sequence (0.5 B, 2 cores) takes 13.2 instead of 14 ms.
_HUGE_PAGES = "glibc.malloc.hugetlb=1"


class Child:
    """A started worker.

    It has an output pipe of its own, so that no orphan can hold the supervisor's, and a lifeline:
    a pipe whose closing tells it that the supervisor is gone. ``on_exit(child)`` is called once,
    from a thread, as soon as the process has ended.
    """

    def __init__(
        self, slug: str, desired: DesiredModel, owner: str, on_exit: Callable[[Child], None]
    ) -> None:
        self.slug = slug
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
        """The exit code, ``-N`` for signal N; ``None`` while it runs."""
        return self._process.poll()

    @property
    def worker_names(self) -> list[str]:
        """RQ names of its two loops."""
        return [names.worker_name(self.slug, consumer, self.token) for consumer in ("gen", "ctl")]

    def stop(self, grace_s: float, *, after_s: float = 0.0) -> None:
        """Ask for the end, once: a polite signal in ``after_s``, a firm one ``grace_s`` later."""
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
        """End a worker that does not work; ``killed_for`` tells why."""
        log.error("worker is killed", extra={"pid": self.pid, "why": reason.message})
        self.killed_for = reason
        self._signal(signal.SIGKILL)

    def _spawn(self, lifeline: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "workers", "--model-id", self.desired.model_id]
        command += ["--token", self.token, "--uid", self.desired.uid]
        command += ["--load-job", self.desired.load_job, "--owner", self._owner]
        command += ["--lifeline", str(lifeline)]
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(lifeline,),
            start_new_session=True,  # a signal to the terminal's group is ours to pass on
            env=_environment(),
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


def _environment() -> dict[str, str]:
    """Ours, where the packages are, and how C library and threads behave, unless that is set."""
    inherited = dict(os.environ)  # noqa: TID251 - handed on whole
    # Nothing depends on the current folder.
    own = {"PYTHONPATH": str(_ROOT), "PYTHONUNBUFFERED": "1"}
    if "OMP_WAIT_POLICY" not in inherited:
        inherited.setdefault("GOMP_SPINCOUNT", _SPINS)
    inherited.setdefault("OPENBLAS_THREAD_TIMEOUT", _BLAS_WAIT)
    tunables = inherited.get("GLIBC_TUNABLES", "")
    if "glibc.malloc.hugetlb" not in tunables:
        own["GLIBC_TUNABLES"] = ":".join(filter(None, (tunables, _HUGE_PAGES)))
    return inherited | own


def describe_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
