"""Who listens to a job, and what the bell has brought for them."""

from __future__ import annotations

import asyncio

from jobs.events import Event

_QUEUE_EVENTS = 256


class Subscription:
    """The events of one job as the bell brings them; ``None`` says: look into the log.

    ``is_known``: the job's record has been there, so that its absence means a loss.
    """

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.is_known = False
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue(_QUEUE_EVENTS)

    def put(self, event: Event) -> None:
        """Hand an event over; a reader that is too slow falls back to the log."""
        if self._queue.full():
            self.note_gap()
        else:
            self._queue.put_nowait(event)

    def note_gap(self) -> None:
        """Forget what waits, and send the reader to the log."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    async def get(self, timeout_s: float) -> Event | None:
        """The next event; ``None`` after a gap or ``timeout_s`` of silence."""
        if not self._queue.empty():
            return self._queue.get_nowait()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._queue.get()
        except TimeoutError:
            return None


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
