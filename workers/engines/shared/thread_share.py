"""How many threads a step uses: as many as there are cores that no other process uses.

The threads of a step meet at hundreds of barriers, where one without a core delays all: two models
with two threads each on two cores were 3 to 30 times slower than with one thread each; the longer
a thread spins before it sleeps, the slower. A number given at load is used as it is.
"""

from __future__ import annotations

import math
import time
from typing import Protocol

import psutil

_INTERVAL_S = 0.25
_REST_S = 0.02
# Load of other processes, in cores, that is too small to give up a core for.
_SPARE = 0.2


class CpuClock(Protocol):
    """CPU time used so far, in seconds."""

    def ours(self) -> float:
        """CPU time of this process."""
        ...

    def all(self) -> float:
        """CPU time of all processes of the machine."""
        ...


class SystemClock:
    """CPU times from the operating system."""

    def ours(self) -> float:
        return time.process_time()

    def all(self) -> float:
        times = psutil.cpu_times()
        # ``user`` and ``nice`` include guest time; steal and iowait are no process's work.
        return float(times.user + times.system + times.nice)


class ThreadShare:
    """Chooses the number of threads for the next step, at most ``max_threads`` of ``num_cores``."""

    def __init__(self, max_threads: int, num_cores: int, clock: CpuClock | None = None) -> None:
        self._max_threads = max_threads
        self._num_cores = num_cores
        self._clock = clock or SystemClock()
        self._num = max_threads
        self._measured_at = self._worked_until = -math.inf
        self._ours = self._all = 0.0

    def choose(self, now: float) -> int:
        """The number of threads, measured again every 0.25 s; ``now`` in monotonic seconds.

        After a rest the number stays as it was, because the load of others during the rest tells
        little: two models that get work at once would otherwise both start with all cores.
        """
        elapsed, rested = now - self._measured_at, now - self._worked_until
        if self._max_threads == 1 or (elapsed < _INTERVAL_S and rested < _REST_S):
            return self._num
        ours, every = self._clock.ours(), self._clock.all()
        if rested < _REST_S:
            others = max((every - self._all) - (ours - self._ours), 0) / elapsed
            free = math.ceil(self._num_cores - others - _SPARE)
            self._num = min(max(free, 1), self._max_threads)
        self._measured_at, self._ours, self._all = now, ours, every
        return self._num

    def note_step(self, until: float) -> None:
        """Note the end of a step, in monotonic seconds."""
        self._worked_until = until
