"""How much of the engine's thread a grammar may take: masks are computed between two steps.

llguidance bounds the items of a step, not their price: a row of 800 items of a JSON schema takes
0.1 ms, one of an ambiguous grammar (``e: e e | "a"``) 10 ms, and twice the items eight times that.
"""

from __future__ import annotations

_FREE_S = 0.03
_MOST_OWED_S = 0.5


class StepBudget:
    """Seconds of CPU: so many of a step are free; what is beyond is owed, and later steps pay.

    Single steps may be dear (the first ones of a large grammar); not one after the other.
    """

    def __init__(self, free_s: float = _FREE_S, most_owed_s: float = _MOST_OWED_S) -> None:
        self._free_s = free_s
        self._most_owed_s = most_owed_s
        self._owed_s = 0.0

    def spend(self, seconds: float) -> None:
        self._owed_s += seconds

    def end_step(self) -> None:
        """A token has been taken."""
        self._owed_s = max(0.0, self._owed_s - self._free_s)

    @property
    def is_spent(self) -> bool:
        return self._owed_s > self._free_s + self._most_owed_s
