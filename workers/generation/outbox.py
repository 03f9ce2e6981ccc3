"""The outbox of an attempt: events that wait to be sent, and chunks that grow until then."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

from jobs.contract.errors import JobError
from jobs.contract.events import (
    CalledTool,
    Event,
    EventKind,
    Timings,
    TokenLogprob,
    Usage,
    add_calls,
)

_COALESCED = 32  # tokens of a line of a batch in one event: nobody reads them as they come
_COALESCED_S = 2.0


class Sender(Protocol):
    """Sends the events of the outboxes in ``dirty``; ``lock`` protects it and the outboxes."""

    lock: threading.Lock
    dirty: dict[str, Outbox]

    def notify(self, *, is_urgent: bool = True) -> None:
        """Wake the sender: an outbox has events."""


class _PendingEvent:
    """An event that has no number yet; a chunk grows until it is sent."""

    __slots__ = ("fields", "kind", "logprobs", "reasoning", "text", "token_ids", "tool_calls")

    def __init__(self, kind: EventKind, **fields: Any) -> None:
        self.kind = kind
        self.fields = fields
        self.token_ids: list[int] = []
        self.text: list[str] = []
        self.reasoning = ""
        self.tool_calls: list[CalledTool] = []
        self.logprobs: list[TokenLogprob] = []

    def is_closed_for(self, text: str, reasoning: str) -> bool:
        """Whether these need a new chunk: a chunk has reasoning, then text, then tool calls."""
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
    """The events of one attempt of one job, in order. Any thread may write to it.

    If it ``is_coalesced``, tokens are sent in larger chunks than otherwise.
    """

    def __init__(
        self, sender: Sender, job_id: str, attempt: int, seq: int, *, is_coalesced: bool = False
    ) -> None:
        self.job_id = job_id
        self.attempt = attempt
        # There is a newer attempt, or Redis refuses this job's events: send no more of them.
        self.is_refused = False
        # The job gives way: once its events are sent, it goes back to its queue.
        self.is_handed_back = False
        self.is_coalesced = is_coalesced
        self._sent_at = time.monotonic()
        self._seq = seq
        self._sender = sender
        self._pending: list[_PendingEvent] = []
        self._open_chunks: dict[int, _PendingEvent] = {}
        self._started_choices: set[int] = set()

    def started(self, usage: Usage | None = None) -> None:
        self._put(_PendingEvent(EventKind.STARTED, usage=usage))

    def progress(
        self,
        phase: str,
        fraction: float,
        *,
        completed: int | None = None,
        total: int | None = None,
        file: str | None = None,
    ) -> None:
        """Note how far the job is; of a pull in bytes."""
        figures = {"completed": completed, "total": total, "file": file}
        self._put(_PendingEvent(EventKind.PROGRESS, phase=phase, fraction=fraction, **figures))

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
        """End a tokenize job with its tokens."""
        event = _PendingEvent(EventKind.FINISHED, pieces=pieces)
        event.token_ids = token_ids
        self._put(event)

    def finish_text(self, text: str) -> None:
        """End a detokenize or apply-template job with its text."""
        event = _PendingEvent(EventKind.FINISHED)
        event.text.append(text)
        self._put(event)

    def fail(self, error: JobError, usage: Usage | None = None) -> None:
        self._put(_PendingEvent(EventKind.FAILED, error=error.to_info(), usage=usage))

    def cancel(self, error: JobError, usage: Usage | None = None) -> None:
        self._put(_PendingEvent(EventKind.CANCELLED, error=error.to_info(), usage=usage))

    def hand_back(self) -> None:
        """Give the job back to its queue after the events so far. No event may follow, unless the
        job turns out to be cancelled."""
        with self._sender.lock:
            self.is_handed_back = True
            self._sender.dirty[self.job_id] = self
        self._sender.notify()

    def prompt(self, choice: int, text: str, tokens: list[TokenLogprob]) -> None:
        """Add a part of the choice's echoed prompt; call it before the choice's first token."""
        event = _PendingEvent(EventKind.CHUNK, choice=choice, prompt=tokens)
        event.text.append(text)
        self._put(event)

    def embedding(self, index: int, vector: bytes) -> None:
        """Add the vector of input ``index``: float32, little-endian."""
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
        """Add a token to the choice's chunk; the first one of a choice is sent at once."""
        with self._sender.lock:
            event = self._open_chunks.get(choice)
            if event is None or event.is_closed_for(text, reasoning):
                event = self._open_chunks[choice] = _PendingEvent(EventKind.CHUNK, choice=choice)
                self._pending.append(event)
                self._sender.dirty[self.job_id] = self
            if token_id is not None:
                event.token_ids.append(token_id)
            event.reasoning += reasoning
            event.text.append(text)
            add_calls(event.tool_calls, calls)
            if logprob is not None:
                event.logprobs.append(logprob)
            if finish_reason is not None:
                event.fields["finish_reason"] = finish_reason
            if mirostat_mu is not None:
                event.fields["mirostat_mu"] = mirostat_mu
            if stop is not None:
                event.fields["stop"] = stop
        if choice not in self._started_choices:
            self._started_choices.add(choice)
            self._sender.notify()

    def is_due(self, now: float) -> bool:
        """Whether the pending events are to be sent. Tokens of a coalesced outbox wait for more."""
        if not self.is_coalesced or self.is_handed_back or not self._pending:
            return True
        if any(event.kind is not EventKind.CHUNK for event in self._pending):
            return True
        num = sum(len(event.token_ids) for event in self._pending)
        return num >= _COALESCED or now - self._sent_at >= _COALESCED_S

    def take(self) -> list[Event]:
        """Number and return all pending events; the sender calls it with its lock held."""
        events = []
        for event in self._pending:
            self._seq += 1
            events.append(event.to_event(self.job_id, self.attempt, self._seq))
        self._pending, self._open_chunks = [], {}
        self._sent_at = time.monotonic()
        return events

    def close(self, error: JobError) -> Event:
        """Send nothing more; returns a ``failed`` event for the caller to write."""
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
