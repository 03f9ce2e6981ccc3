"""Calls of tools and thoughts as messages show them. Pure."""

from __future__ import annotations

from typing import Any

from jobs.contract.events import CalledTool


def call_object(call: CalledTool) -> dict[str, Any]:
    """OpenAI's tool call."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def call_delta(call: CalledTool) -> dict[str, Any]:
    """The same in a stream: at the call's beginning all of it, then more arguments."""
    if call.id:
        return {"index": call.index, **call_object(call)}
    return {"index": call.index, "function": {"arguments": call.arguments}}


def reasoning_fields(text: str) -> dict[str, str]:
    """Thoughts, under both of the names that clients look for."""
    return {"reasoning_content": text, "reasoning": text}
