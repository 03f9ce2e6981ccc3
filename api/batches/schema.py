"""Bodies and answers of /v1/batches, as OpenAI's clients send and read them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, field_validator

from api.web.base_schema import Body, Text, integer
from jobs.batches.records import BatchRecord

_WINDOW = re.compile(r"([1-9][0-9]{0,2})([hd])")
_MAX_WINDOW_S = 30 * 86400
_UNITS = {"h": 3600, "d": 86400}
_MAX_METADATA = 16

Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"]
_Key = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=64)]
_Value = Annotated[str, StringConstraints(strict=True, max_length=512)]
Metadata = Annotated[dict[_Key, _Value], Field(max_length=_MAX_METADATA)]


def window_s(window: str) -> int:
    """``24h`` in seconds. Raises ``ValueError`` for what is none, or longer than 30 days."""
    found = _WINDOW.fullmatch(window)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= _MAX_WINDOW_S:
        raise ValueError("a number of hours or days, such as 24h or 7d, at most 30d")
    return seconds


class OutputExpiry(Body):
    """When the output files are deleted by themselves: that long after they were made."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, integer(3600, 30 * 86400)]


class BatchBody(Body):
    """POST /v1/batches."""

    input_file_id: Text
    endpoint: Endpoint
    completion_window: Text = "24h"
    metadata: Metadata | None = None
    output_expires_after: OutputExpiry | None = None

    @field_validator("completion_window")
    @classmethod
    def _check_window(cls, value: str) -> str:
        window_s(value)
        return value


class RetryBody(Body):
    """POST /v1/batches/{batch_id}/retry; what is missing is as in the batch that is retried."""

    completion_window: Text | None = None
    metadata: Metadata | None = None

    @field_validator("completion_window")
    @classmethod
    def _check_window(cls, value: str | None) -> str | None:
        if value is not None:
            window_s(value)
        return value


class BatchError(BaseModel):
    """What is wrong with the input file."""

    code: str
    line: int | None
    message: str
    param: str | None


class BatchErrors(BaseModel):
    """At most 100 of them."""

    object: Literal["list"] = "list"
    data: list[BatchError]


class RequestCounts(BaseModel):
    """How many lines there are, and how many have ended in which way."""

    total: int
    completed: int
    failed: int


class InputDetails(BaseModel):
    """Of the input tokens, those found in the prompt cache."""

    cached_tokens: int


class OutputDetails(BaseModel):
    """Of the output tokens, those of reasoning."""

    reasoning_tokens: int


class UsageAnswer(BaseModel):
    """Tokens of all answered lines."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class WaitingFor(BaseModel):
    """Why a batch in progress makes no progress now."""

    code: str
    message: str


class BatchAnswer(BaseModel):
    """A batch. ``waiting`` and ``retry_of`` are this server's own fields."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: UsageAnswer
    metadata: dict[str, str] | None
    waiting: WaitingFor | None
    retry_of: str | None


class BatchList(BaseModel):
    """A page of batches, newest first; the next one comes after ``last_id``."""

    object: Literal["list"] = "list"
    data: list[BatchAnswer]
    first_id: str | None
    last_id: str | None
    has_more: bool


_SAME = (
    *("id", "endpoint", "model", "input_file_id", "completion_window", "output_file_id"),
    *("error_file_id", "created_at", "in_progress_at", "expires_at", "finalizing_at"),
    *("completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at", "metadata"),
)


def batch_answer(record: BatchRecord) -> BatchAnswer:
    """The batch as clients see it."""
    counts, usage = record.counts, record.usage
    same: dict[str, Any] = {name: getattr(record, name) for name in _SAME}
    errors = [
        BatchError(code=one.code, line=one.line, message=one.message, param=one.param)
        for one in record.errors
    ]
    waiting = WaitingFor(code=record.waiting_code, message=record.waiting_message)
    return BatchAnswer(
        **same,
        status=record.status.value,
        errors=BatchErrors(data=errors) if errors else None,
        request_counts=RequestCounts(
            total=counts.total, completed=counts.completed, failed=counts.failed
        ),
        usage=UsageAnswer(
            input_tokens=usage.input_tokens,
            input_tokens_details=InputDetails(cached_tokens=usage.cached_tokens),
            output_tokens=usage.output_tokens,
            output_tokens_details=OutputDetails(reasoning_tokens=usage.reasoning_tokens),
            total_tokens=usage.input_tokens + usage.output_tokens,
        ),
        waiting=waiting if record.waiting_code else None,
        retry_of=record.retry_of or None,
    )
