"""Turns what the decode loop says into events, and sends them: off the path of a token.

The loop only appends to an outbox. One thread sends; while Redis is slow or away, tokens wait and
coalesce into larger chunks, and what was built is sent again with the same ids. What Redis refuses
for good is one job's: that job ends, and the others go on.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from redis.exceptions import RedisError

from jobs.contract.errors import JobError
from jobs.contract.events import Event, EventKind
from jobs.storage.connection import is_transient
from jobs.storage.event_log import EventWriter
from jobs.storage.script_connection import PendingReply
from workers.generation.outbox import Outbox

_RETRY_S = 0.1
_CHUNK_GAP_S = 1 / 60  # between two rounds of nothing but tokens
_REPLY_S = 1.0  # for which a reply may lie unread

T = TypeVar("T")

log = logging.getLogger(__name__)


class Publisher(threading.Thread):
    """Sends what is in the outboxes, in order per job, until ``stop``.

    ``on_refused(job_id)``: the attempt is stale, or nothing of it can be written: nothing of it
    counts any more. ``on_settled(event, is_end)``: a terminal event was written (``is_end``), or
    lost against another end. ``on_started(job_id)``: the job's ``started`` event is out, and its
    end is not at hand. ``on_written(event)``: Redis has an event that is not terminal.
    """

    def __init__(
        self,
        writer: EventWriter,
        on_refused: Callable[[str], None],
        on_settled: Callable[[Event, bool], None],
        on_started: Callable[[str], None] = lambda job_id: None,
        on_written: Callable[[Event], None] = lambda event: None,
    ) -> None:
        super().__init__(name="publisher", daemon=True)
        self.lock = threading.Lock()
        self.dirty: dict[str, Outbox] = {}
        # What the decode loop calls: one call of C, where threading.Event takes ten of Python.
        self._wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._urgent = threading.Event()
        self._next_at = 0.0
        self._writer = writer
        self._on_refused = on_refused
        self._on_settled = on_settled
        self._on_started = on_started
        self._on_written = on_written
        self._is_stopping = False
        self._num_in_flight = 0
        self._sending: dict[str, Outbox] = {}
        self._sent: tuple[list[Event], PendingReply] | None = None

    @property
    def num_unpublished(self) -> int:
        """Events built but not yet in Redis, and outboxes with something to say."""
        return self._num_in_flight + len(self.dirty)

    def notify(self, *, is_urgent: bool = True) -> None:
        """Something is in an outbox; tokens after the first are not urgent."""
        if is_urgent:
            self._urgent.set()
        # Else the thread wakes up anyway, and takes what is there by then.
        if self._wakeups.empty():
            self._wakeups.put(None)

    def stop(self, timeout_s: float) -> bool:
        """Send what is there, then end; False when it could not be sent in time."""
        self._is_stopping = True
        self.notify()
        self.join(timeout_s)
        return not self.is_alive()

    def run(self) -> None:
        while True:
            try:
                self._wakeups.get(timeout=None if self._sent is None else _REPLY_S)
            except queue.Empty:
                self._note_replies()
                continue
            self._pace()
            self._note_replies()  # first: while Redis is slow, what waits grows into one chunk
            events = self._take()
            if events:
                self._send(events)
            elif self._is_stopping:
                return
            if self._is_stopping:
                self.notify()

    def _pace(self) -> None:
        """Tokens that come faster than people read share an event, unless something is urgent."""
        wait_s = self._next_at - time.monotonic()
        if wait_s > 0:
            self._urgent.wait(wait_s)
        self._urgent.clear()

    def _take(self) -> list[Event]:
        with self.lock:
            outboxes = [outbox for outbox in self.dirty.values() if not outbox.is_refused]
            self.dirty.clear()
            events = [event for outbox in outboxes for event in outbox.take()]
            self._num_in_flight = len(events)
            self._sending = {outbox.job_id: outbox for outbox in outboxes}
        return events

    def _send(self, events: list[Event]) -> None:
        """Write all, again and again until Redis takes them.

        Whether it has taken mere tokens is seen when there is more to send: to be woken for it
        costs as much as sending.
        """
        ongoing = [event for event in events if not event.is_terminal]
        if ongoing:
            self._sent = ongoing, self._writer.send(ongoing)
            if all(event.kind is EventKind.CHUNK for event in events):
                self._next_at = time.monotonic() + _CHUNK_GAP_S
                return
            self._note_replies()
        ending = [event for event in events if event.is_terminal]
        for job_id in {e.job for e in ongoing if e.kind is EventKind.STARTED}:
            if not self._sending[job_id].is_refused and job_id not in {e.job for e in ending}:
                self._on_started(job_id)
        for event in ending:
            if not self._sending[event.job].is_refused:
                self._settle(event)
        self._num_in_flight = 0

    def _note_replies(self) -> None:
        """What Redis says to the events that were sent; those that it has not taken go again."""
        if self._sent is None:
            return
        events, reply = self._sent
        answers = self._ask(events, reply.wait)
        self._sent = None
        self._num_in_flight = 0
        for event, is_written in zip(events, answers, strict=True):
            if is_written:
                self._on_written(event)
        for job_id in {e.job for e, ok in zip(events, answers, strict=True) if not ok}:
            self._sending[job_id].is_refused = True
            self._on_refused(job_id)

    def _ask(self, events: list[Event], ask: Callable[[], list[bool]]) -> list[bool]:
        """Whether Redis has taken each event; a refusal that does not pass is one job's alone."""
        try:
            return _until_done(ask, lambda: self._writer.append(events))
        except RedisError as error:
            job_ids = {event.job for event in events}
            if len(job_ids) == 1:
                self._give_up(events[0].job, error)
                return [True] * len(events)  # as nothing more is to be done about them
        answers = {job_id: iter(self._append_of(job_id, events)) for job_id in job_ids}
        return [next(answers[event.job]) for event in events]

    def _append_of(self, job_id: str, events: list[Event]) -> list[bool]:
        own = [event for event in events if event.job == job_id]
        return self._ask(own, lambda: self._writer.append(own))

    def _settle(self, event: Event) -> None:
        try:
            is_end = _until_done(lambda: self._writer.settle(event))
        except RedisError as error:
            return self._give_up(event.job, error)
        self._on_settled(event, is_end)

    def _give_up(self, job_id: str, error: RedisError) -> None:
        """End a job of which Redis takes no events, as far as it takes an end."""
        log.error("events cannot be written", extra={"job": job_id, "error": str(error)})
        reason = JobError(f"the job's events cannot be written: {error}")
        event = self._sending[job_id].last_word(reason)
        try:
            is_end = _until_done(lambda: self._writer.settle(event))
        except RedisError as refusal:
            log.error("nor its end", extra={"job": job_id, "error": str(refusal)})
        else:
            self._on_settled(event, is_end)
        self._on_refused(job_id)


def _until_done(write: Callable[[], T], again: Callable[[], T] | None = None) -> T:
    """Try until Redis takes it, from the second time on with ``again``; raises what is for good."""
    while True:
        try:
            return write()
        except RedisError as error:
            if not is_transient(error):
                raise
            log.warning("redis refuses events, will retry", extra={"error": str(error)})
            time.sleep(_RETRY_S)
        write = again or write
