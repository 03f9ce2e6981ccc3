"""The error body and the statuses that have it, for OpenAPI."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class ErrorObject(BaseModel):
    """OpenAI's error object; ``code`` is stable."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """The body of every error; ``detail`` repeats the message, as in the original server."""

    error: ErrorObject
    detail: str


_DESCRIPTIONS = {
    400: "Wrong request",
    401: "No or wrong key",
    404: "Unknown model or job",
    410: "The job was cancelled or its model unloaded",
    429: "The queue is full",
    503: "Not ready, or Redis cannot be reached",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text} for status, text in _DESCRIPTIONS.items()
}
