"""What a worker says of a job: frozen, versioned events, one JSON line each.

The same line goes to the job's log (a Redis stream, id ``<attempt>-<seq>``) and to its channel.
``seq`` counts on across attempts; a job has exactly one terminal event, its last.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple

import msgspec

from jobs.contract.errors import ContractError, ErrorInfo

VERSION = 1
IMPOSSIBLE_LOGPROB = -9999.0


class EventKind(StrEnum):
    """What an event says; the last three end the job."""

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
    """Place of an event in its job's log; compares in log order."""

    attempt: int
    seq: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> EventId:
        """Read ``<attempt>-<seq>``; ``ValueError`` for anything else."""
        attempt, seq = text.split("-")
        if not (attempt.isascii() and attempt.isdigit() and seq.isascii() and seq.isdigit()):
            raise ValueError(f"not an event id: {text!r}")
        event_id = cls(int(attempt), int(seq))
        if max(event_id) >= 1 << 63:
            raise ValueError(f"not an event id: {text!r}")
        return event_id


BEFORE_ALL = EventId(0, 0)
"""Sorts before every event: no event has this id."""


class PromptUsage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Token counts of one of a job's prompts."""

    prompt_tokens: int = 0
    cached_tokens: int = 0


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Token counts of a job, summed over its prompts and choices.

    ``prompts``: of several prompts, each one's part.
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
    """Where a job's time went, in milliseconds, and the resulting rates."""

    queue_ms: float = 0.0
    prefill_ms: float = 0.0
    ttft_ms: float = 0.0
    decode_ms: float = 0.0
    prefill_tokens_per_s: float = 0.0
    decode_tokens_per_s: float = 0.0


class TokenLogprob(msgspec.Struct, frozen=True, omit_defaults=True):
    """Log-probability of one token, and of the likeliest ones at its place.

    ``logprob`` is ``None`` for a prompt's first token, which nothing predicts.
    """

    token_id: int
    text: str
    logprob: float | None
    raw: list[int] = []
    """The token's UTF-8 bytes."""
    top: list[TokenLogprob] = []

    def __post_init__(self) -> None:
        # JSON has no infinity: an impossible token gets OpenAI's value for one.
        if self.logprob is not None and not math.isfinite(self.logprob):
            msgspec.structs.force_setattr(self, "logprob", IMPOSSIBLE_LOGPROB)


class CalledTool(msgspec.Struct, frozen=True, omit_defaults=True):
    """The ``index``-th tool call of a choice, whole; ``arguments`` is JSON text."""

    index: int
    id: str
    name: str
    arguments: str = "{}"


class Event(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One message of a job. Which fields are set depends on ``kind``.

    started: usage (prompt tokens). progress: ``phase`` ("load", "prefill") and ``fraction``.
    chunk: choice, token_ids, what they add to the answer's ``reasoning``, then its ``text``, then
    its ``tool_calls``, logprobs, ``mirostat_mu`` after its last token, and finish_reason on the
    choice's last one (stop, length, or tool_calls when it stopped to have tools called), with the
    ``stop`` string that ended it, if one did; or a part of the echoed prompt, before all others:
    text and the tokens in ``prompt``; or one input's vector: choice and ``embedding``, float32
    values in little-endian bytes.
    finished: usage, timings; or ``num_tokens`` of a token-count, ``token_ids`` of a text and, when
    asked for, each one's bytes in ``pieces``, or the ``text`` of tokens or of a chat template.
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
    """One JSON line, without a line end."""
    return _encoder.encode(event)


def decode_event(data: bytes) -> Event:
    """The event in ``data``, or ``ContractError`` for anything else (also another version)."""
    try:
        event = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"the event cannot be read: {error}") from error
    if event.v != VERSION:
        raise ContractError(f"event version {event.v} is not {VERSION}")
    return event
