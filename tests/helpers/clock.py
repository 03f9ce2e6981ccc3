"""A clock that only a test advances (the fixture ``clock`` installs it)."""

from __future__ import annotations


class Clock:
    """Replaces ``time.monotonic``."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
