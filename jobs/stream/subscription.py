"""Subscriptions to the events of jobs."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from jobs.contract.events import Event

_QUEUE_EVENTS = 256


class Subscription:
    """Queue of one job's events from pub/sub. ``None`` in it means: read the log.

    ``is_known`` is set once the job's record or events were seen. If they are missing later, Redis
    has lost data.
    """

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.is_known = False
        self._events: deque[Event | None] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._waits_since = 0.0

    def put(self, event: Event) -> None:
        """Add an event. If the reader is too slow, it must read the log instead."""
        if len(self._events) >= _QUEUE_EVENTS:
            self.note_gap()
            return
        self._events.append(event)
        self._wake()

    def note_gap(self) -> None:
        """Drop the queued events and make the reader read the log."""
        self._events.clear()
        self._events.append(None)
        self._wake()

    async def get(self) -> Event | None:
        """Wait for the next event, ``None`` after a gap. For one reader at a time."""
        while not self._events:
            self._waiter = asyncio.get_running_loop().create_future()
            self._waits_since = time.monotonic()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._events.popleft()

    def silence_s(self, now: float) -> float:
        """How long the reader has been waiting, 0 if it is not."""
        return now - self._waits_since if self._waiter is not None else 0.0

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Channel:
    """The listeners of a channel, and whether Redis has confirmed its subscription."""

    def __init__(self) -> None:
        self.listeners: set[Subscription] = set()
        self.confirmed = asyncio.Event()

    def confirm(self) -> None:
        if self.confirmed.is_set():  # a second time: after a reconnection
            for subscription in self.listeners:
                subscription.note_gap()
        self.confirmed.set()
