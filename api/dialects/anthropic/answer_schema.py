"""Answers of /v1/messages, Anthropic's Messages API."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel


class TextBlockObject(BaseModel):
    """Text that the model wrote."""

    type: Literal["text"]
    text: str


class ThinkingBlockObject(BaseModel):
    """What it thought before; nobody has to check the signature."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class ToolUseBlockObject(BaseModel):
    """A tool call that it asks for."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class MessageUsage(BaseModel):
    """Tokens; those read from the prompt cache are not part of ``input_tokens``."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    service_tier: Literal["standard", "priority", "batch"]


class MessageObject(BaseModel):
    """The model's turn; ``id`` is the job's."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextBlockObject | ThinkingBlockObject | ToolUseBlockObject]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    stop_sequence: str | None
    usage: MessageUsage


class MessageTokensCount(BaseModel):
    """Length of the prompt that the same body would make."""

    input_tokens: int


class MessageErrorDetails(BaseModel):
    """Our own stable code, and the parameter at fault."""

    error_code: str
    param: str | None


class MessageErrorObject(BaseModel):
    """Anthropic's error object."""

    type: Literal[
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "request_too_large",
        "rate_limit_error",
        "api_error",
        "overloaded_error",
    ]
    message: str
    details: MessageErrorDetails


class MessageErrorBody(BaseModel):
    """Every error of these routes; ``request_id`` is the job's id."""

    type: Literal["error"]
    error: MessageErrorObject
    request_id: str | None


_DESCRIPTIONS = {
    400: "Wrong request",
    401: "No or wrong key",
    404: "Unknown model",
    410: "The job was cancelled or its model unloaded",
    413: "The body is too large",
    429: "The queue is full",
    503: "Not ready, or the queue is away",
}
MESSAGE_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": MessageErrorBody, "description": text}
    for status, text in _DESCRIPTIONS.items()
}
