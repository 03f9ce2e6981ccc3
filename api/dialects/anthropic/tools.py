"""Anthropic's tools to those of a chat. Pure."""

from __future__ import annotations

from typing import Any

from api.dialects.anthropic.schema import ClientToolBody, MessagePromptBody, ToolChoiceBody
from jobs.contract.errors import InvalidRequestError

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def to_tool_fields(body: MessagePromptBody) -> dict[str, Any]:
    """``tools``, ``tool_choice`` and ``parallel_tool_calls`` as a chat has them.

    Tools of a type of their own run at Anthropic or are known to its models alone; agents list
    them without being asked: they are left out.
    """
    tools = [
        _to_tool(tool, f"tools[{index}]")
        for index, tool in enumerate(body.tools or ())
        if tool.type in (None, "custom")
    ]
    choice = _to_choice(body.tool_choice) if body.tool_choice else None
    if not tools:
        # Nothing to choose from; what asks for a call all the same is for the chat to refuse.
        return {} if choice in (None, "none", "auto") else {"tool_choice": choice}
    fields = {"tools": tools, "tool_choice": choice}
    is_single = body.tool_choice is not None and body.tool_choice.disable_parallel_tool_use
    return {**fields, "parallel_tool_calls": False} if is_single else fields


def _to_tool(tool: ClientToolBody, place: str) -> dict[str, Any]:
    if not tool.name:
        raise InvalidRequestError(f"{place}.name is required", f"{place}.name")
    if tool.input_schema is None:
        raise InvalidRequestError(f"{place}.input_schema is required", f"{place}.input_schema")
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = tool.input_schema
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _to_choice(choice: ToolChoiceBody) -> str | dict[str, Any]:
    if choice.type != "tool":
        return _CHOICES[choice.type]
    if not choice.name:
        raise InvalidRequestError("tool_choice.name is required", "tool_choice.name")
    return {"type": "function", "function": {"name": choice.name}}
