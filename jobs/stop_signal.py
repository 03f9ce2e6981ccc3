"""Stop signals as a file to wait on."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from types import FrameType


class StopSignal:
    """SIGTERM, SIGINT and SIGHUP as a readable pipe, to be waited on together with other files.

    A handler that sets a ``threading.Event`` could deadlock with the wait that it interrupts.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        numbers = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # started by nohup
            numbers.remove(signal.SIGHUP)
        for number in numbers:
            signal.signal(number, self._note)

    def fileno(self) -> int:
        """For ``select``: readable after the first signal."""
        return self._reader

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for a signal. True once one has arrived, False after ``timeout_s``."""
        return bool(select.select([self], [], [], timeout_s)[0])

    def forget(self) -> None:
        """Discard the signals so far, so that ``wait`` waits for the next one."""
        if self.wait(0):
            os.read(self._reader, 4096)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"!")
