"""Waits for conditions in other threads or processes, with a deadline, without a fixed sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_FIRST_PAUSE_S = 0.005
_LAST_PAUSE_S = 0.05

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, timeout_s: float = 20.0) -> T:
    """The first true value of ``condition``; fails with ``what`` after the time-out.

    The interval between two checks is a twentieth of the time so far: each check of a server takes
    processor time from other tests.
    """
    start = time.monotonic()
    while True:
        if value := condition():
            return value
        passed_s = time.monotonic() - start
        assert passed_s < timeout_s, f"not within {timeout_s} s: {what}"
        time.sleep(min(max(passed_s / 20, _FIRST_PAUSE_S), _LAST_PAUSE_S))
