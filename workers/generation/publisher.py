"""Sends the events of the outboxes to Redis, on a thread of its own.

The decode loop only appends to an outbox. While Redis is slow or down, tokens collect into larger
chunks, and events that were built are sent again with the same ids. If Redis refuses a job's
events permanently, this job ends and the others continue.
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
_CHUNK_GAP_S = 1 / 60  # between two rounds that send only tokens
_REPLY_S = 1.0  # maximum time until a reply is read

T = TypeVar("T")

log = logging.getLogger(__name__)


class Publisher(threading.Thread):
    """Sends the events of the outboxes, in order per job, until ``stop``.

    ``on_refused(job_id)``: the attempt is stale or cannot be written; it must be dropped.
    ``on_settled(event, is_end)``: a terminal event was written (``is_end``), or the job already
    had another one. ``on_started(job_id)``: the ``started`` event was written and the job has not
    ended in the same round. ``on_written(event)``: a non-terminal event was written.
    ``on_handed_back(outbox)``: all events of a job that gives way were written.
    """

    def __init__(
        self,
        writer: EventWriter,
        on_refused: Callable[[str], None],
        on_settled: Callable[[Event, bool], None],
        on_started: Callable[[str], None] = lambda job_id: None,
        on_written: Callable[[Event], None] = lambda event: None,
        on_handed_back: Callable[[Outbox], None] = lambda outbox: None,
    ) -> None:
        super().__init__(name="publisher", daemon=True)
        self.lock = threading.Lock()
        self.dirty: dict[str, Outbox] = {}
        # The decode loop notifies per step: a SimpleQueue is one call in C, threading.Event ten in
        # Python.
        self._wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._urgent = threading.Event()
        self._next_at = 0.0
        self._writer = writer
        self._on_refused = on_refused
        self._on_settled = on_settled
        self._on_started = on_started
        self._on_written = on_written
        self._on_handed_back = on_handed_back
        self._is_stopping = False
        self._num_in_flight = 0
        self._sending: dict[str, Outbox] = {}
        self._sent: tuple[list[Event], PendingReply] | None = None

    @property
    def num_unpublished(self) -> int:
        """Number of events that are not in Redis yet, and of outboxes with pending events."""
        return self._num_in_flight + len(self.dirty)

    def notify(self, *, is_urgent: bool = True) -> None:
        """Wake the thread: an outbox has events. Tokens after the first are not urgent."""
        if is_urgent:
            self._urgent.set()
        # If a wake-up is already queued, the thread will take these events with it.
        if self._wakeups.empty():
            self._wakeups.put(None)

    def stop(self, timeout_s: float) -> bool:
        """Send all events, then end; False if that took longer than ``timeout_s``."""
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
            self._note_replies()  # before _take: while Redis is slow, tokens collect into one chunk
            events, returning = self._take()
            if events:
                self._send(events)
            elif self._is_stopping and not returning:
                return
            if returning:
                self._hand_back(returning)
            if self._is_stopping:
                self.notify()

    def _pace(self) -> None:
        """Wait, so that fast tokens share an event; an urgent event ends the wait."""
        wait_s = self._next_at - time.monotonic()
        if wait_s > 0:
            self._urgent.wait(wait_s)
        self._urgent.clear()

    def _take(self) -> tuple[list[Event], list[Outbox]]:
        """The events that are due, and the outboxes of jobs that give way after them."""
        now = time.monotonic()
        with self.lock:
            due = [box for box in self.dirty.values() if self._is_stopping or box.is_due(now)]
            for outbox in due:
                del self.dirty[outbox.job_id]
            outboxes = [outbox for outbox in due if not outbox.is_refused]
            events = [event for outbox in outboxes for event in outbox.take()]
            self._num_in_flight = len(events)
            self._sending = {outbox.job_id: outbox for outbox in outboxes}
        return events, [outbox for outbox in outboxes if outbox.is_handed_back]

    def _hand_back(self, outboxes: list[Outbox]) -> None:
        self._note_replies()
        for outbox in outboxes:
            if not outbox.is_refused:
                outbox.is_handed_back = False
                self._on_handed_back(outbox)

    def _send(self, events: list[Event]) -> None:
        """Write all events, and retry until Redis accepts them.

        After a round of tokens only, the reply is read with the next round: waking up for it would
        cost as much as sending.
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
        """Read the reply to the events sent last; if it is an error, they are sent again."""
        if self._sent is None:
            return
        events, reply = self._sent
        answers = self._confirm(events, reply.wait)
        self._sent = None
        self._num_in_flight = 0
        for event, is_written in zip(events, answers, strict=True):
            if is_written:
                self._on_written(event)
        for job_id in {e.job for e, ok in zip(events, answers, strict=True) if not ok}:
            self._sending[job_id].is_refused = True
            self._on_refused(job_id)

    def _confirm(self, events: list[Event], send: Callable[[], list[bool]]) -> list[bool]:
        """Whether Redis has written each event. On a permanent error, jobs are tried one by one; a
        job that causes it is failed, and its events count as written."""
        try:
            return _until_done(send, lambda: self._writer.append(events))
        except RedisError as error:
            job_ids = {event.job for event in events}
            if len(job_ids) == 1:
                self._fail(events[0].job, error)
                return [True] * len(events)
        answers = {job_id: iter(self._append_job(job_id, events)) for job_id in job_ids}
        return [next(answers[event.job]) for event in events]

    def _append_job(self, job_id: str, events: list[Event]) -> list[bool]:
        own = [event for event in events if event.job == job_id]
        return self._confirm(own, lambda: self._writer.append(own))

    def _settle(self, event: Event) -> None:
        try:
            is_end = _until_done(lambda: self._writer.settle(event))
        except RedisError as error:
            return self._fail(event.job, error)
        self._on_settled(event, is_end)

    def _fail(self, job_id: str, error: RedisError) -> None:
        """Fail a job whose events Redis refuses; if it refuses this event too, only log it."""
        log.error("events cannot be written", extra={"job": job_id, "error": str(error)})
        reason = JobError(f"the job's events cannot be written: {error}")
        event = self._sending[job_id].close(reason)
        try:
            is_end = _until_done(lambda: self._writer.settle(event))
        except RedisError as refusal:
            log.error("failure cannot be written", extra={"job": job_id, "error": str(refusal)})
        else:
            self._on_settled(event, is_end)
        self._on_refused(job_id)


def _until_done(write: Callable[[], T], again: Callable[[], T] | None = None) -> T:
    """Call ``write``, and ``again`` (default: ``write``) until it succeeds.

    Raises permanent errors (see ``is_passing``).
    """
    while True:
        try:
            return write()
        except RedisError as error:
            if not is_transient(error):
                raise
            log.warning("redis refuses events, will retry", extra={"error": str(error)})
            time.sleep(_RETRY_S)
        write = again or write
