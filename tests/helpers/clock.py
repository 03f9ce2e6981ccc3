"""A clock that stands still unless a test moves it (the fixture ``clock`` puts it into place)."""

from __future__ import annotations


class Clock:
    """Called as ``time.monotonic`` is."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
