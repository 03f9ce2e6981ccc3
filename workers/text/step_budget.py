"""Limits the time that a grammar takes on the engine's thread, between two decode passes.

llguidance limits the parser items of a step, but not their cost: a row of 800 items takes 0.1 ms
for a JSON schema and 10 ms for an ambiguous grammar (``e: e e | "a"``), where twice the items take
eight times as long.
"""

from __future__ import annotations

import time

_FREE_S = 0.03
_MAX_DEBT_S = 0.5
_SLOW_S = 0.002


class StepBudget:
    """CPU seconds: each step has ``free_s``; what is over is a debt that later steps reduce.

    So single steps may be slow (the first ones of a large grammar), but not many in a row. CPU time
    costs 1 µs per measurement, so it is measured only after the first call that took ``slow_s``.
    """

    def __init__(
        self, free_s: float = _FREE_S, max_debt_s: float = _MAX_DEBT_S, slow_s: float = _SLOW_S
    ) -> None:
        self._free_s = free_s
        self._max_debt_s = max_debt_s
        self._slow_s = slow_s
        self._debt_s = 0.0
        self.now = time.perf_counter

    def spend_since(self, started: float) -> None:
        """Count the time since ``started``, a former value of ``now()``."""
        seconds = self.now() - started
        if self.now is time.thread_time:
            self.spend(seconds)
        elif seconds >= self._slow_s:
            # Other threads may have had the core: measure this thread's CPU time from now on.
            self.now = time.thread_time

    def spend(self, seconds: float) -> None:
        self._debt_s += seconds

    def end_step(self) -> None:
        """Note that a token has been accepted."""
        self._debt_s = max(0.0, self._debt_s - self._free_s)

    @property
    def is_exceeded(self) -> bool:
        return self._debt_s > self._free_s + self._max_debt_s
