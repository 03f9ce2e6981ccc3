"""What a step of the engine costs by its number of rows, and what batch rows may add to it."""

from __future__ import annotations

from itertools import pairwise

# Shares of a new measurement. Whatever else runs on the machine only adds to a step, so a longer
# one counts little; but it counts, as a step's cost grows with the length of its rows.
_FALL, _RISE = 0.3, 0.01
_MAX_CREDIT_S = 0.25
_MAX_DEBT_S = 5.0


class StepCosts:
    """Learns from the steps; rows cost the same in both classes.

    Beside interactive rows a step may take ``slowdown`` times as long as without batch rows. A step
    that reads a batch job's prompt takes longer; the time above is a debt that later steps pay off.
    """

    def __init__(self, slowdown: float) -> None:
        self._slowdown = slowdown
        self._seconds: dict[int, float] = {}
        self._credit_s = 0.0

    @property
    def is_in_debt(self) -> bool:
        return self._credit_s < 0

    def note(self, num_rows: int, seconds: float) -> None:
        """A step without prefill that gave each of ``num_rows`` sequences a token."""
        known = self._seconds.get(num_rows, seconds)
        share = _RISE if seconds > known else _FALL
        self._seconds[num_rows] = known + share * (seconds - known)

    def charge(self, num_interactive: int, seconds: float) -> None:
        """A step in which batch rows ran, or were read, beside so many interactive rows."""
        alone = self.predict(num_interactive)
        if alone is not None:
            credit = self._credit_s + self._slowdown * alone - seconds
            self._credit_s = min(max(credit, -_MAX_DEBT_S), _MAX_CREDIT_S)

    def predict(self, num_rows: int) -> float | None:
        """Seconds of a step, by a line through the two known numbers of rows that are nearest.

        ``None`` if it cannot be told yet.
        """
        if num_rows in self._seconds:
            return self._seconds[num_rows]
        if len(self._seconds) < 2:
            return None
        first, second = min(
            pairwise(sorted(self._seconds)),
            key=lambda pair: max(pair[0] - num_rows, num_rows - pair[1]),
        )
        low, high = self._seconds[first], self._seconds[second]
        slope = (high - low) / (second - first)
        return max(low + slope * (num_rows - first), min(low, high) / 4)

    def num_beside(self, num_interactive: int, num_slots: int) -> int:
        """How many batch rows may run beside so many interactive ones; 1 to find out."""
        free = num_slots - num_interactive
        if num_interactive == 0 or free <= 0:
            return max(free, 0)
        alone = self.predict(num_interactive)
        if alone is None:
            return 1
        for num in range(free, 0, -1):
            together = self.predict(num_interactive + num)
            if together is not None and together <= self._slowdown * alone:
                return num
        return 1 if self.predict(num_interactive + 1) is None else 0
