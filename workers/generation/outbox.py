"""What one attempt of a job has to say: events that wait to be sent, chunks that grow meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

from jobs.contract.errors import JobError
from jobs.contract.events import CalledTool, Event, EventKind, Timings, TokenLogprob, Usage


class Sender(Protocol):
    """Whoever sends the events of outboxes: those in ``dirty``, which ``lock`` guards."""

    lock: threading.Lock
    dirty: dict[str, Outbox]

    def notify(self, *, is_urgent: bool = True) -> None:
        """Something is in an outbox."""


class _PendingEvent:
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

    def __init__(self, sender: Sender, job_id: str, attempt: int, seq: int) -> None:
        self.job_id = job_id
        self.attempt = attempt
        # Redis knows a newer attempt, or takes nothing of this job: nothing of this one counts.
        self.is_refused = False
        self._seq = seq
        self._sender = sender
        self._pending: list[_PendingEvent] = []
        self._open_chunks: dict[int, _PendingEvent] = {}
        self._begun: set[int] = set()

    def started(self, usage: Usage | None = None) -> None:
        self._put(_PendingEvent(EventKind.STARTED, usage=usage))

    def progress(self, phase: str, fraction: float) -> None:
        self._put(_PendingEvent(EventKind.PROGRESS, phase=phase, fraction=fraction))

    def finish(
        self,
        usage: Usage | None = None,
        timings: Timings | None = None,
        num_tokens: int | None = None,
    ) -> None:
        self._put(
            _PendingEvent(EventKind.FINISHED, usage=usage, timings=timings, num_tokens=num_tokens)
        )

    def finish_tokens(self, token_ids: list[int], pieces: list[bytes] | None) -> None:
        """The tokens that a text was asked for."""
        event = _PendingEvent(EventKind.FINISHED, pieces=pieces)
        event.token_ids = token_ids
        self._put(event)

    def finish_text(self, text: str) -> None:
        """The text that tokens, or messages, were asked for."""
        event = _PendingEvent(EventKind.FINISHED)
        event.text.append(text)
        self._put(event)

    def fail(self, error: JobError, usage: Usage | None = None) -> None:
        self._put(_PendingEvent(EventKind.FAILED, error=error.to_info(), usage=usage))

    def cancel(self, error: JobError, usage: Usage | None = None) -> None:
        self._put(_PendingEvent(EventKind.CANCELLED, error=error.to_info(), usage=usage))

    def prompt(self, choice: int, text: str, tokens: list[TokenLogprob]) -> None:
        """A part of the choice's echoed prompt; before its first token."""
        event = _PendingEvent(EventKind.CHUNK, choice=choice, prompt=tokens)
        event.text.append(text)
        self._put(event)

    def embedding(self, index: int, vector: bytes) -> None:
        """The vector of one input."""
        self._put(_PendingEvent(EventKind.CHUNK, choice=index, embedding=vector))

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
        """Add a token's text to the choice's chunk; a first one leaves at once."""
        with self._sender.lock:
            event = self._open_chunks.get(choice)
            if event is None or event.is_past(text, reasoning):
                event = self._open_chunks[choice] = _PendingEvent(EventKind.CHUNK, choice=choice)
                self._pending.append(event)
                self._sender.dirty[self.job_id] = self
            if token_id is not None:
                event.token_ids.append(token_id)
            event.reasoning += reasoning
            event.text.append(text)
            event.tool_calls += calls
            if logprob is not None:
                event.logprobs.append(logprob)
            if finish_reason is not None:
                event.fields["finish_reason"] = finish_reason
            if mirostat_mu is not None:
                event.fields["mirostat_mu"] = mirostat_mu
            if stop is not None:
                event.fields["stop"] = stop
        if choice not in self._begun:
            self._begun.add(choice)
            self._sender.notify()

    def take(self) -> list[Event]:
        """All pending events, numbered; called by the sender with its lock held."""
        events = []
        for event in self._pending:
            self._seq += 1
            events.append(event.to_event(self.job_id, self.attempt, self._seq))
        self._pending, self._open_chunks = [], {}
        return events

    def last_word(self, error: JobError) -> Event:
        """The end of a job of which nothing else can be written any more."""
        with self._sender.lock:
            self.is_refused = True
            self._seq += 1
            event = _PendingEvent(EventKind.FAILED, error=error.to_info())
            return event.to_event(self.job_id, self.attempt, self._seq)

    def _put(self, event: _PendingEvent) -> None:
        with self._sender.lock:
            self._pending.append(event)
            self._sender.dirty[self.job_id] = self
        self._sender.notify()
