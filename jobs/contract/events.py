"""The events of a job: frozen, versioned values, one JSON line each.

The worker writes the same line to the job's log (a Redis stream, id ``<attempt>-<seq>``) and to
its channel. ``seq`` continues across attempts. A job has exactly one terminal event, its last.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

import msgspec

from jobs.contract.errors import ContractError, ErrorInfo

VERSION = 1
IMPOSSIBLE_LOGPROB = -9999.0


class EventKind(StrEnum):
    """The kind of an event. The last three are terminal."""

    STARTED = "started"
    PROGRESS = "progress"
    CHUNK = "chunk"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in _TERMINAL


_TERMINAL = frozenset({EventKind.FINISHED, EventKind.FAILED, EventKind.CANCELLED})


class EventId(NamedTuple):
    """Position of an event in its job's log. Ids compare in log order."""

    attempt: int
    seq: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> EventId:
        """Parse ``<attempt>-<seq>``. Raises ``ValueError`` for anything else."""
        attempt, seq = text.split("-")
        if not (attempt.isascii() and attempt.isdigit() and seq.isascii() and seq.isdigit()):
            raise ValueError(f"not an event id: {text!r}")
        event_id = cls(int(attempt), int(seq))
        if max(event_id) >= 1 << 63:
            raise ValueError(f"not an event id: {text!r}")
        return event_id


BEFORE_ALL = EventId(0, 0)
"""Sorts before every event. No event has this id."""


class PromptUsage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Token counts of one prompt."""

    prompt_tokens: int = 0
    cached_tokens: int = 0


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Token counts of a job, summed over its prompts and choices.

    ``prompts`` has the counts of each prompt when there are several.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    prompts: list[PromptUsage] = []

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Timings(msgspec.Struct, frozen=True, omit_defaults=True):
    """Durations of a job's phases in milliseconds, and the resulting rates."""

    queue_ms: float = 0.0
    prefill_ms: float = 0.0
    ttft_ms: float = 0.0
    decode_ms: float = 0.0
    prefill_tokens_per_s: float = 0.0
    decode_tokens_per_s: float = 0.0


class TokenLogprob(msgspec.Struct, frozen=True, omit_defaults=True):
    """Log-probability of one token, and of the most likely tokens at its position (``top``).

    ``logprob`` is ``None`` for a prompt's first token, which has no prediction.
    """

    token_id: int
    text: str
    logprob: float | None
    raw: list[int] = []
    """The token's UTF-8 bytes."""
    top: list[TokenLogprob] = []

    def __post_init__(self) -> None:
        # JSON has no infinity. OpenAI reports this value for an impossible token.
        if self.logprob is not None and not math.isfinite(self.logprob):
            msgspec.structs.force_setattr(self, "logprob", IMPOSSIBLE_LOGPROB)


class CalledTool(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a chunk adds to the ``index``-th tool call of a choice.

    The first of a call has its ``id`` and ``name``, and may be all of it; others, without these,
    go on with ``arguments``. Put together, those are JSON text, if the call was not cut. (The
    default is that of whole calls, which older logs hold.)
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = "{}"

    def joined(self, more: CalledTool) -> CalledTool | None:
        """The two as one, if ``more`` goes on with this call."""
        if more.id or more.index != self.index:
            return None
        return CalledTool(self.index, self.id, self.name, self.arguments + more.arguments)


def add_calls(calls: list[CalledTool], more: Iterable[CalledTool]) -> None:
    """Go on with the last call, or begin the next, as each of ``more`` says."""
    for call in more:
        joined = calls[-1].joined(call) if calls else None
        if joined is None:
            calls.append(call)
        else:
            calls[-1] = joined


class Event(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One message of a job. ``kind`` decides which fields are set.

    started: usage (prompt tokens).
    progress: ``phase`` ("load", "prefill", "pull") and ``fraction``; of a pull also ``completed``
    and ``total`` (bytes), and the ``file``.
    chunk of an answer: choice, token_ids, and what these tokens add to ``reasoning``, then to
    ``text``, then to ``tool_calls``; logprobs; ``mirostat_mu`` after the last token. The choice's
    last chunk has finish_reason (stop, length, tool_calls) and the ``stop`` string that ended it.
    chunk of an echoed prompt, before the answer: text, and the tokens in ``prompt``.
    chunk of an embedding: choice and ``embedding`` (float32 values, little-endian bytes).
    finished: usage and timings; or the result of a text job: ``num_tokens``, ``token_ids`` (with
    each token's bytes in ``pieces`` on request), or ``text``; of a pull ``text``, the model's name.
    failed, cancelled: error.
    """

    job: str
    attempt: int
    seq: int
    kind: EventKind
    t: float
    choice: int = 0
    token_ids: list[int] = []
    text: str = ""
    reasoning: str = ""
    tool_calls: list[CalledTool] = []
    logprobs: list[TokenLogprob] | None = None
    prompt: list[TokenLogprob] | None = None
    mirostat_mu: float | None = None
    embedding: bytes | None = None
    finish_reason: str | None = None
    stop: str | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    phase: str | None = None
    fraction: float | None = None
    completed: int | None = None
    total: int | None = None
    file: str | None = None
    num_tokens: int | None = None
    pieces: list[bytes] | None = None
    error: ErrorInfo | None = None
    v: int = VERSION

    @property
    def id(self) -> EventId:
        return EventId(self.attempt, self.seq)

    @property
    def is_terminal(self) -> bool:
        return self.kind.is_terminal


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def encode_event(event: Event) -> bytes:
    """The event as JSON without a line end."""
    return _encoder.encode(event)


def decode_event(data: bytes) -> Event:
    """Decode an event. Raises ``ContractError`` for anything else, also for another version."""
    try:
        event = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"the event cannot be read: {error}") from error
    if event.v != VERSION:
        raise ContractError(f"event version {event.v} is not {VERSION}")
    return event
