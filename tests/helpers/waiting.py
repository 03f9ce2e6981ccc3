"""Waiting for what another thread or process does, with a deadline and never by a fixed sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_FIRST_PAUSE_S = 0.005
_LAST_PAUSE_S = 0.05

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, timeout_s: float = 20.0) -> T:
    """The first true value of ``condition``; fails with ``what`` when there is none in time.

    It is asked ever less often, a twentieth of the time that has passed later: each look at a
    server costs time that others need for their tests.
    """
    start = time.monotonic()
    while True:
        if value := condition():
            return value
        passed_s = time.monotonic() - start
        assert passed_s < timeout_s, f"not within {timeout_s} s: {what}"
        time.sleep(min(max(passed_s / 20, _FIRST_PAUSE_S), _LAST_PAUSE_S))
