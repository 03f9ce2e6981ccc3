"""Whether Redis has been in sight for long enough to judge others by their silence.

While Redis is away nobody's heartbeats arrive, so that afterwards everybody seems dead. Whoever
was blind waits until all the others have had the time for a heartbeat.
"""

from __future__ import annotations

import time
from collections.abc import Callable

BLIND_AFTER_S = 3.0
"""So long without an answer of Redis is blindness."""
RECOVERY_S = 6.0
"""So long after it nobody is judged, and nothing is taken: longer than a heartbeat lives."""


class Sight:
    """Call ``look`` whenever Redis has answered.

    Both clocks count: a machine that sleeps stops the one, and time that was set the other.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._looked_at = (monotonic(), wall())
        self._clear_at = monotonic()

    def look(self) -> None:
        """Redis has answered just now."""
        self._judge()
        self._looked_at = (self._monotonic(), self._wall())

    def note_blindness(self) -> None:
        """Nobody can be judged yet for another reason."""
        self._clear_at = self._monotonic() + RECOVERY_S

    @property
    def is_clear(self) -> bool:
        """True when the silence of others means something."""
        self._judge()
        return self._monotonic() >= self._clear_at

    def _judge(self) -> None:
        now, (monotonic_at, wall_at) = self._monotonic(), self._looked_at
        if max(now - monotonic_at, self._wall() - wall_at) >= BLIND_AFTER_S:
            self.note_blindness()
