"""The signals that ask a process to end, as something to wait on."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from types import FrameType


class StopSignal:
    """SIGTERM, SIGINT and SIGHUP as a readable pipe, safe to wait on together with other files.

    A handler that sets a ``threading.Event`` can deadlock the very wait it interrupts.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        numbers = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup: outlive the terminal
            numbers.remove(signal.SIGHUP)
        for number in numbers:
            signal.signal(number, self._note)

    def fileno(self) -> int:
        """For ``select``: readable from the first signal on."""
        return self._reader

    def wait(self, timeout_s: float | None = None) -> bool:
        """True once any of the signals has come."""
        return bool(select.select([self], [], [], timeout_s)[0])

    def forget(self) -> None:
        """Take note of the signals so far: ``wait`` is then about the next one."""
        if self.wait(0):
            os.read(self._reader, 4096)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"!")
