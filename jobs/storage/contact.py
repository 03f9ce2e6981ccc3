"""Whether this process can trust that a missing heartbeat means a dead process.

While Redis is unreachable no heartbeat arrives, so all other processes look dead afterwards.
After an interruption a process waits until every other one has had time for a heartbeat.
"""

from __future__ import annotations

import time
from collections.abc import Callable

INTERRUPTED_AFTER_S = 3.0
"""This long without an answer from Redis is an interruption."""
STABLE_AFTER_S = 6.0
"""This long after it no process counts as dead. Longer than a heartbeat's expiry."""


class RedisContact:
    """Tracks interruptions of the contact with Redis. Call ``note_answer`` after each answer.

    Both clocks are checked: the monotonic clock stops while the machine sleeps, and the wall clock
    can be set back.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._answered_at = (monotonic(), wall())
        self._stable_at = monotonic()

    def note_answer(self) -> None:
        """Redis has just answered."""
        self._check()
        self._answered_at = (self._monotonic(), self._wall())

    def note_interruption(self) -> None:
        """Start the wait of ``STABLE_AFTER_S`` for another reason, such as lost data."""
        self._stable_at = self._monotonic() + STABLE_AFTER_S

    @property
    def is_stable(self) -> bool:
        """True when a missing heartbeat means a dead process."""
        self._check()
        return self._monotonic() >= self._stable_at

    def _check(self) -> None:
        now, (monotonic_at, wall_at) = self._monotonic(), self._answered_at
        if max(now - monotonic_at, self._wall() - wall_at) >= INTERRUPTED_AFTER_S:
            self.note_interruption()
