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
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from redis.exceptions import RedisError

from jobs.contract.errors import JobError
from jobs.contract.events import CalledTool, Event, EventKind, Timings, TokenLogprob, Usage
from jobs.storage.connection import is_passing
from jobs.storage.event_log import EventWriter

_RETRY_S = 0.1
_ANSWER_S = 1.0  # for which an answer may lie unread

T = TypeVar("T")

log = logging.getLogger(__name__)


class _Draft:
    """An event without its number yet; a chunk grows until it is sent."""

    __slots__ = ("fields", "kind", "logprobs", "reasoning", "text", "token_ids", "tool_calls")

    def __init__(self, kind: EventKind, **fields: Any) -> None:
        self.kind = kind
        self.fields = fields
        self.token_ids: list[int] = []
        self.text: list[str] = []
        self.reasoning = ""
        self.tool_calls: list[CalledTool] = []
        self.logprobs: list[TokenLogprob] = []

    def is_past(self, text: str, reasoning: str) -> bool:
        """Whether these come too late: a chunk has thoughts, then text, then calls."""
        if self.tool_calls:
            return bool(text or reasoning)
        return bool(reasoning) and any(self.text)

    def to_event(self, job_id: str, attempt: int, seq: int) -> Event:
        return Event(
            job=job_id,
            attempt=attempt,
            seq=seq,
            kind=self.kind,
            t=time.time(),
            token_ids=self.token_ids,
            text="".join(self.text),
            reasoning=self.reasoning,
            tool_calls=self.tool_calls,
            logprobs=self.logprobs or None,
            **self.fields,
        )


class Outbox:
    """The events of one attempt of one job, in order. Any thread may write to it."""

    def __init__(self, publisher: Publisher, job_id: str, attempt: int, seq: int) -> None:
        self.job_id = job_id
        self.attempt = attempt
        # Redis knows a newer attempt, or takes nothing of this job: nothing of this one counts.
        self.is_refused = False
        self._seq = seq
        self._publisher = publisher
        self._drafts: list[_Draft] = []
        self._open_chunks: dict[int, _Draft] = {}

    def started(self, usage: Usage | None = None) -> None:
        self._put(_Draft(EventKind.STARTED, usage=usage))

    def progress(self, phase: str, fraction: float) -> None:
        self._put(_Draft(EventKind.PROGRESS, phase=phase, fraction=fraction))

    def finish(
        self,
        usage: Usage | None = None,
        timings: Timings | None = None,
        num_tokens: int | None = None,
    ) -> None:
        self._put(_Draft(EventKind.FINISHED, usage=usage, timings=timings, num_tokens=num_tokens))

    def finish_tokens(self, token_ids: list[int], pieces: list[bytes] | None) -> None:
        """The tokens that a text was asked for."""
        draft = _Draft(EventKind.FINISHED, pieces=pieces)
        draft.token_ids = token_ids
        self._put(draft)

    def finish_text(self, text: str) -> None:
        """The text that tokens, or messages, were asked for."""
        draft = _Draft(EventKind.FINISHED)
        draft.text.append(text)
        self._put(draft)

    def fail(self, error: JobError, usage: Usage | None = None) -> None:
        self._put(_Draft(EventKind.FAILED, error=error.to_info(), usage=usage))

    def cancel(self, error: JobError, usage: Usage | None = None) -> None:
        self._put(_Draft(EventKind.CANCELLED, error=error.to_info(), usage=usage))

    def prompt(self, choice: int, text: str, tokens: list[TokenLogprob]) -> None:
        """A part of the choice's echoed prompt; before its first token."""
        draft = _Draft(EventKind.CHUNK, choice=choice, prompt=tokens)
        draft.text.append(text)
        self._put(draft)

    def embedding(self, index: int, vector: bytes) -> None:
        """The vector of one input."""
        self._put(_Draft(EventKind.CHUNK, choice=index, embedding=vector))

    def chunk(
        self,
        choice: int,
        token_id: int | None,
        text: str,
        logprob: TokenLogprob | None = None,
        finish_reason: str | None = None,
        mirostat_mu: float | None = None,
        stop: str | None = None,
        reasoning: str = "",
        calls: Sequence[CalledTool] = (),
    ) -> None:
        """Add a token's text to the choice's chunk; it leaves at the next ``ring``."""
        with self._publisher.lock:
            draft = self._open_chunks.get(choice)
            if draft is None or draft.is_past(text, reasoning):
                draft = self._open_chunks[choice] = _Draft(EventKind.CHUNK, choice=choice)
                self._drafts.append(draft)
                self._publisher.dirty[self.job_id] = self
            if token_id is not None:
                draft.token_ids.append(token_id)
            draft.reasoning += reasoning
            draft.text.append(text)
            draft.tool_calls += calls
            if logprob is not None:
                draft.logprobs.append(logprob)
            if finish_reason is not None:
                draft.fields["finish_reason"] = finish_reason
            if mirostat_mu is not None:
                draft.fields["mirostat_mu"] = mirostat_mu
            if stop is not None:
                draft.fields["stop"] = stop

    def take(self) -> list[Event]:
        """All drafts as numbered events; called by the publisher with its lock held."""
        events = []
        for draft in self._drafts:
            self._seq += 1
            events.append(draft.to_event(self.job_id, self.attempt, self._seq))
        self._drafts, self._open_chunks = [], {}
        return events

    def last_word(self, error: JobError) -> Event:
        """The end of a job of which nothing else can be written any more."""
        with self._publisher.lock:
            self.is_refused = True
            self._seq += 1
            draft = _Draft(EventKind.FAILED, error=error.to_info())
            return draft.to_event(self.job_id, self.attempt, self._seq)

    def _put(self, draft: _Draft) -> None:
        with self._publisher.lock:
            self._drafts.append(draft)
            self._publisher.dirty[self.job_id] = self
        self._publisher.notify()


class Publisher(threading.Thread):
    """Sends what is in the outboxes, in order per job, until ``stop``.

    ``on_refused(job_id)``: the attempt is stale, or nothing of it can be written: nothing of it
    counts any more. ``on_settled(event, is_end)``: a terminal event was written (``is_end``), or
    lost against another end. ``on_started(job_id)``: the job's ``started`` event is out, and its
    end is not at hand.
    """

    def __init__(
        self,
        writer: EventWriter,
        on_refused: Callable[[str], None],
        on_settled: Callable[[Event, bool], None],
        on_started: Callable[[str], None] = lambda job_id: None,
    ) -> None:
        super().__init__(name="publisher", daemon=True)
        self.lock = threading.Lock()
        self.dirty: dict[str, Outbox] = {}
        # The decode loop rings: this is one call of C, an Event's Python takes ten.
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._writer = writer
        self._on_refused = on_refused
        self._on_settled = on_settled
        self._on_started = on_started
        self._is_stopping = False
        self._num_in_flight = 0
        self._sending: dict[str, Outbox] = {}
        self._posted: tuple[list[Event], Callable[[], list[bool]]] | None = None

    @property
    def num_unpublished(self) -> int:
        """Events built but not yet in Redis, and outboxes with something to say."""
        return self._num_in_flight + len(self.dirty)

    def notify(self) -> None:
        """Something is in an outbox."""
        if self._bell.empty():  # else it still rings, and what is there by then is taken
            self._bell.put(None)

    def stop(self, timeout_s: float) -> bool:
        """Send what is there, then end; False when it could not be sent in time."""
        self._is_stopping = True
        self.notify()
        self.join(timeout_s)
        return not self.is_alive()

    def run(self) -> None:
        while True:
            try:
                self._bell.get(timeout=None if self._posted is None else _ANSWER_S)
            except queue.Empty:
                self._note_answers()
                continue
            self._note_answers()  # first: while Redis is slow, what waits grows into one chunk
            events = self._take()
            if events:
                self._send(events)
            elif self._is_stopping:
                return
            if self._is_stopping:
                self.notify()

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
            self._posted = ongoing, self._writer.post(ongoing)
            if all(event.kind is EventKind.CHUNK for event in events):
                return
            self._note_answers()
        ending = [event for event in events if event.is_terminal]
        for job_id in {e.job for e in ongoing if e.kind is EventKind.STARTED}:
            if not self._sending[job_id].is_refused and job_id not in {e.job for e in ending}:
                self._on_started(job_id)
        for event in ending:
            if not self._sending[event.job].is_refused:
                self._settle(event)
        self._num_in_flight = 0

    def _note_answers(self) -> None:
        """What Redis says to the events that were posted; those that it has not taken go again."""
        if self._posted is None:
            return
        events, answers_of = self._posted
        answers = self._ask(events, answers_of)
        self._posted = None
        self._num_in_flight = 0
        for job_id in {e.job for e, ok in zip(events, answers, strict=True) if not ok}:
            self._sending[job_id].is_refused = True
            self._on_refused(job_id)

    def _ask(self, events: list[Event], answers_of: Callable[[], list[bool]]) -> list[bool]:
        """Whether Redis has taken each event; a refusal that does not pass is one job's alone."""
        try:
            return _until_done(answers_of, lambda: self._writer.append(events))
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
            if not is_passing(error):
                raise
            log.warning("redis refuses events, will retry", extra={"error": str(error)})
            time.sleep(_RETRY_S)
        write = again or write
