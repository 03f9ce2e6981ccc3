"""The error body, and which statuses carry it (for OpenAPI)."""

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
    """Every error of this API; ``detail`` repeats the message, as the original server had it."""

    error: ErrorObject
    detail: str


_DESCRIPTIONS = {
    400: "Wrong request",
    401: "No or wrong key",
    404: "Unknown model or job",
    410: "The job was cancelled or its model unloaded",
    429: "The queue is full",
    503: "Not ready, or the queue is away",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text} for status, text in _DESCRIPTIONS.items()
}
