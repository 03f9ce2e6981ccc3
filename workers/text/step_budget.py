"""How much of the engine's thread a grammar may take: masks are computed between two steps.

llguidance bounds the items of a step, not their price: a row of 800 items of a JSON schema takes
0.1 ms, one of an ambiguous grammar (``e: e e | "a"``) 10 ms, and twice the items eight times that.
"""

from __future__ import annotations

import time

_FREE_S = 0.03
_MOST_OWED_S = 0.5
_DEAR_S = 0.002


class StepBudget:
    """Seconds of CPU: so many of a step are free; what is beyond is owed, and later steps pay.

    Single steps may be dear (the first ones of a large grammar); not one after the other. Time is
    measured from the first call on that took ``dear_s``: to ask for a thread's takes 1 µs.
    """

    def __init__(
        self, free_s: float = _FREE_S, most_owed_s: float = _MOST_OWED_S, dear_s: float = _DEAR_S
    ) -> None:
        self._free_s = free_s
        self._most_owed_s = most_owed_s
        self._dear_s = dear_s
        self._owed_s = 0.0
        self.now = time.perf_counter

    def spend_since(self, started: float) -> None:
        """Something ends that began when it was ``now``."""
        seconds = self.now() - started
        if self.now is time.thread_time:
            self.spend(seconds)
        elif seconds >= self._dear_s:
            # Others may have had the core meanwhile: a thread's own time tells from now on.
            self.now = time.thread_time

    def spend(self, seconds: float) -> None:
        self._owed_s += seconds

    def end_step(self) -> None:
        """A token has been taken."""
        self._owed_s = max(0.0, self._owed_s - self._free_s)

    @property
    def is_spent(self) -> bool:
        return self._owed_s > self._free_s + self._most_owed_s
