"""Who listens to a job, and what the bell has brought for them."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from jobs.contract.events import Event

_QUEUE_EVENTS = 256


class Subscription:
    """The events of one job as the bell brings them; ``None`` says: look into the log.

    ``is_known``: the job's record has been there, so that its absence means a loss.
    """

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.is_known = False
        self._events: deque[Event | None] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._waits_since = 0.0

    def put(self, event: Event) -> None:
        """Hand an event over; a reader that is too slow falls back to the log."""
        if len(self._events) >= _QUEUE_EVENTS:
            self.note_gap()
            return
        self._events.append(event)
        self._wake()

    def note_gap(self) -> None:
        """Forget what waits, and send the reader to the log."""
        self._events.clear()
        self._events.append(None)
        self._wake()

    async def get(self) -> Event | None:
        """The next event; ``None`` after a gap. One reader at a time."""
        while not self._events:
            self._waiter = asyncio.get_running_loop().create_future()
            self._waits_since = time.monotonic()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._events.popleft()

    def silence_s(self, now: float) -> float:
        """For how long the reader has heard nothing; 0 while it does not wait."""
        return now - self._waits_since if self._waiter is not None else 0.0

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Channel:
    """Who listens to a channel, and whether Redis has confirmed the subscription."""

    def __init__(self) -> None:
        self.listeners: set[Subscription] = set()
        self.confirmed = asyncio.Event()

    def confirm(self) -> None:
        if self.confirmed.is_set():  # a second time: the connection was re-made
            for subscription in self.listeners:
                subscription.note_gap()
        self.confirmed.set()
