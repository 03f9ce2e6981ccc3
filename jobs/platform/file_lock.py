"""Waits for an exclusive lock of a file, for a bounded time."""

from __future__ import annotations

import fcntl
import time


def lock_file(descriptor: int, deadline: float, poll_s: float) -> bool:
    """Whether the file is locked now; False after ``deadline`` of the monotonic clock."""
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(poll_s)
        else:
            return True
