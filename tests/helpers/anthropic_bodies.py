"""Builders for bodies of /v1/messages, and a check of its error body."""

from __future__ import annotations

from typing import Any

from api.dialects.anthropic.answer_schema import MessageErrorBody
from api.dialects.anthropic.schema import MessagesBody

USER: Any = {"role": "user", "content": "hi"}
ADD: Any = {"name": "add", "description": "Adds.", "input_schema": {"type": "object"}}
CALL: Any = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1}}


def text(value: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **fields}


def result(value: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "toolu_1", "content": value, **fields}


def turn(role: str, *blocks: Any) -> dict[str, Any]:
    return {"role": role, "content": list(blocks)}


def read(**fields: Any) -> MessagesBody:
    return MessagesBody.model_validate({"max_tokens": 8, "messages": [USER], **fields})


def check_anthropic_error(body: Any) -> str:
    """Check that the body is an error in Anthropic's format; returns its code."""
    MessageErrorBody.model_validate(body, strict=True)
    assert set(body) == {"type", "error", "request_id"}
    assert body["error"]["message"]
    return str(body["error"]["details"]["error_code"])
