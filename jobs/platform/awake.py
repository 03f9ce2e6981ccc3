"""Keeps the machine awake while jobs run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from jobs.platform.base import Awake, Platform

_REST_S = 30.0  # between two requests of one chat it stays awake


class AwakeWhileBusy:
    """Keeps the machine awake while there is work and for 30 s after; ``None``: never.

    A client that waits for its answer touches no key, so an idle Mac would sleep in the middle.
    """

    def __init__(
        self, platform: Platform | None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._platform = platform
        self._monotonic = monotonic
        self._busy_at: float | None = None
        self._held: Awake | None = None

    def note(self, *, is_busy: bool) -> None:
        """Say whether jobs run; to be called each second or so."""
        now = self._monotonic()
        if is_busy:
            if self._busy_at is None and self._platform is not None:  # Once, also if it fails.
                self._held = self._platform.keep_awake(os.getpid())
            self._busy_at = now
        elif self._busy_at is not None and now - self._busy_at >= _REST_S:
            self.release()

    def release(self) -> None:
        """Let the machine sleep."""
        held, self._held, self._busy_at = self._held, None, None
        if held is not None:
            held.release()
