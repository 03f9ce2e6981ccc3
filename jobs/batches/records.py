"""The record of a batch: a frozen value, kept as ``batch.json`` in its folder and in Redis."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from jobs.contract.errors import ContractError

MAX_LINES = 50_000
MAX_MESSAGES = 100_000
"""Requests of a batch of ``/v1/messages``."""
MAX_ERRORS = 100
"""Errors of an input file that are shown."""

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings")
"""The routes that the lines of a batch of OpenAI's kind may name."""
MESSAGES = "/v1/messages"
"""The route of the requests of a batch of Anthropic's kind."""


class BatchStatus(StrEnum):
    """Status of a batch. The last four are terminal."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    CANCELLING = "cancelling"
    FAILED = "failed"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in _TERMINAL


_TERMINAL = frozenset(
    {BatchStatus.FAILED, BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.CANCELLED}
)


class LineError(msgspec.Struct, frozen=True):
    """What is wrong with an input file; ``line`` counts from 1."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchUsage(msgspec.Struct, frozen=True):
    """Tokens of all answered lines."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def plus(self, other: BatchUsage) -> BatchUsage:
        return BatchUsage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


NO_USAGE = BatchUsage()


class LineCounts(msgspec.Struct, frozen=True):
    """How many lines have ended, and how. ``failed`` includes those cancelled and expired."""

    total: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0

    @property
    def num_left(self) -> int:
        return self.total - self.completed - self.failed


class BatchRecord(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One batch. Times are epoch seconds.

    ``kind`` is the vendor whose format input and output have. ``home`` is the uid of the folder
    that holds its files. ``output_ttl_s`` is how long output files are kept. ``waiting_code`` and
    ``waiting_message`` say what a batch in progress waits for, if it does. ``retry_of`` is the
    batch whose failed lines this one repeats. Its output files get the planned ids, so that each
    is stored once, whatever interrupts that.
    """

    id: str
    endpoint: str
    created_at: int
    expires_at: int
    kind: Literal["openai", "anthropic"] = "openai"
    caller: str = ""
    input_file_id: str = ""
    completion_window: str = "24h"
    metadata: dict[str, str] | None = None
    output_ttl_s: int | None = None
    retry_of: str = ""
    home: str = ""
    status: BatchStatus = BatchStatus.VALIDATING
    model: str | None = None
    counts: LineCounts = LineCounts()
    usage: BatchUsage = BatchUsage()
    errors: list[LineError] = []
    waiting_code: str = ""
    waiting_message: str = ""
    planned_output_id: str = ""
    planned_error_id: str = ""
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    cancelling_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelled_at: int | None = None

    @property
    def hex(self) -> str:
        """The random part of the id."""
        return self.id.rpartition("_")[2]

    @property
    def is_cancellable(self) -> bool:
        """OpenAI's until all lines have ended; Anthropic's until the batch itself has."""
        if self.kind == "anthropic":
            return not self.status.is_terminal
        return self.status in (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS)

    @property
    def ended_at(self) -> int | None:
        """When it reached a terminal status."""
        return self.completed_at or self.failed_at or self.expired_at or self.cancelled_at

    def line_job(self, line: int, run: int = 0) -> str:
        """The id of a line's job. ``run``: how often the line was run again."""
        return f"bline-{self.hex}-{line}" + (f"-{run}" if run else "")


def encode_batch(record: BatchRecord) -> bytes:
    """The record as JSON."""
    return msgspec.json.encode(record)


def decode_batch(data: bytes) -> BatchRecord:
    """Raises ``ContractError`` when it is no record of a batch."""
    try:
        return msgspec.json.decode(data, type=BatchRecord)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ContractError(f"the record of a batch cannot be read: {error}") from error
