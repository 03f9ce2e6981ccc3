"""A program in a terminal of its own: what it shows, and what a user types."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import psutil

_DEADLINE_S = 30.0
# Ctrl-C reaches the processes of the terminal, which is this one's only if it asks for it. A shell
# starts what runs in the background with the signal ignored.
_START = (
    "import fcntl, signal, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from api.cli.main import main; main()"
)


class Terminal:
    """``mgs`` with these arguments. Close it, or use it as a context."""

    def __init__(self, *arguments: str, env: Mapping[str, str], folder: Path) -> None:
        self._main, side = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, *arguments],
            stdin=side,
            stdout=side,
            stderr=side,
            env={**env, "TERM": "xterm-256color"},
            cwd=folder,
            start_new_session=True,
        )
        os.close(side)
        self.shown = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._main)

    def type(self, text: str) -> None:
        """Keys; a line ends with a return."""
        os.write(self._main, text.replace("\n", "\r").encode())

    def expect(self, text: str) -> str:
        """Wait for a text; returns what was shown up to it since the last one, and forgets it."""
        deadline = time.monotonic() + _DEADLINE_S
        while text not in self.shown:
            assert time.monotonic() < deadline, f"no {text!r} in {self.shown!r}"
            assert self._read(), f"ended without {text!r}: {self.shown!r}"
        before, _, self.shown = self.shown.partition(text)
        return before

    def is_waiting(self) -> bool:
        """Whether it does nothing at this moment."""
        return psutil.Process(self.process.pid).status() == psutil.STATUS_SLEEPING

    def end(self) -> int:
        """Wait for the end of the program; its exit status."""
        while self._read():
            pass
        return self.process.wait(_DEADLINE_S)

    def _read(self) -> bool:
        """Read what is there, within a second; False at the end."""
        if not select.select([self._main], [], [], 1.0)[0]:
            return True
        try:
            data = os.read(self._main, 65536)
        except OSError:  # Linux: the other side is closed
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)
