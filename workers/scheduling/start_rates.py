"""How fast jobs have started of late, from which the API estimates when a waiting one starts."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from jobs.contract.records import JobClass

_MOST = 32
_FEWEST = 5
_WINDOW_S = 600.0


class StartRates:
    """The last starts of each class. Threads that start jobs note them, another one reads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._starts: dict[JobClass, deque[float]] = {
            "interactive": deque(maxlen=_MOST),
            "batch": deque(maxlen=_MOST),
        }

    def note(self, job_class: JobClass) -> None:
        """A job of the class starts for the first time."""
        self._starts[job_class].append(self._clock())

    def per_s(self) -> dict[JobClass, float]:
        """Starts per second up to now, of the classes with enough of them in ten minutes."""
        now = self._clock()
        recent = {
            job_class: [at for at in tuple(starts) if now - at <= _WINDOW_S]
            for job_class, starts in self._starts.items()
        }
        return {
            job_class: (len(starts) - 1) / max(now - starts[0], 1e-3)
            for job_class, starts in recent.items()
            if len(starts) >= _FEWEST
        }
