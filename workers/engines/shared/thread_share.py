"""How many threads a step gets: those of the cores that nobody else is using.

The threads of a step meet at hundreds of barriers. One that has to wait there for a core makes all
wait: two models with two threads each on two cores were 3 to 30 times slower than with one each,
the more the longer a thread spins before it sleeps. Who names a number at load gets that one.
"""

from __future__ import annotations

import math
import os
import time
from typing import Protocol

import psutil

_INTERVAL_S = 0.25
_REST_S = 0.02
# Of a core: what little others do between our steps is no reason to give one up.
_SPARE = 0.2


class CpuClock(Protocol):
    """What has been worked so far, in seconds of one core."""

    def ours(self) -> float:
        """By this process."""
        ...

    def all(self) -> float:
        """By all processes of the machine."""
        ...


class SystemClock:
    """The operating system's counts."""

    def ours(self) -> float:
        return time.process_time()

    def all(self) -> float:
        times = psutil.cpu_times()
        # Guests' time is in that of their users, steal and iowait are nobody's work here.
        return float(times.user + times.system + times.nice)


class ThreadShare:
    """The number of threads for the next step, at most ``most`` of ``num_cores``."""

    def __init__(self, most: int, num_cores: int, clock: CpuClock | None = None) -> None:
        self._most = most
        self._num_cores = num_cores
        self._clock = clock or SystemClock()
        self._num = most
        self._looked_at = self._worked_until = -math.inf
        self._ours = self._all = 0.0

    def look(self, now: float) -> int:
        """The number, looked at anew every quarter of a second; ``now`` in monotonic seconds.

        What the others did while there was nothing to do here says little: after a rest the number
        is what it was. Two models that are asked at once would else begin with all cores each.
        """
        elapsed, rested = now - self._looked_at, now - self._worked_until
        if self._most == 1 or (elapsed < _INTERVAL_S and rested < _REST_S):
            return self._num
        ours, every = self._clock.ours(), self._clock.all()
        if rested < _REST_S:
            others = max((every - self._all) - (ours - self._ours), 0) / elapsed
            free = math.ceil(self._num_cores - others - _SPARE)
            self._num = min(max(free, 1), self._most)
        self._looked_at, self._ours, self._all = now, ours, every
        return self._num

    def note_step(self, until: float) -> None:
        """A step has ended just now."""
        self._worked_until = until


def physical_cores() -> int:
    """How many cores this process may use.

    A second hyperthread of a core slows matrix products down. A container may own fewer than all.
    """
    usable = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else 0
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    return min(physical, usable or physical)
