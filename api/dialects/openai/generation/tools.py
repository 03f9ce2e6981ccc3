"""Tools of a chat: their definitions, and how the model may use them. Pure."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from api.dialects.openai.generation.schema import GenerationBody, NamedToolBody, ToolBody
from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.requests import ToolUse

Tools = list[dict[str, Any]]

_FIELD = "tool_choice"
_MODES = "none, auto, required or a function"


def to_tools(tools: Tools | None) -> Tools | None:
    """The tools as they came, once each has the shape that templates read."""
    for index, tool in enumerate(tools or ()):
        try:
            ToolBody.model_validate(tool)
            json.dumps(tool, allow_nan=False)
        except (ValidationError, ValueError, RecursionError):
            raise InvalidRequestError(
                "a tool is an object with type 'function' and a function with a name",
                f"tools[{index}]",
            ) from None
    return tools or None


def read_tools(
    tools: Tools | None = None,
    tool_choice: str | dict[str, Any] | None = None,
    parallel_tool_calls: bool | None = None,
) -> tuple[Tools | None, ToolUse | None]:
    """The tools that the model is told of, none when it may call none, and how it calls them."""
    shown = None if tool_choice == "none" else to_tools(tools)
    name = _read_choice(tool_choice)
    is_required = name is not None or tool_choice == "required"
    if shown is None:
        if is_required:
            raise InvalidRequestError(f"{_FIELD}: there are no tools to call", _FIELD)
        return None, None
    if name is not None and name not in [tool["function"]["name"] for tool in shown]:
        raise InvalidRequestError(f"{_FIELD}: no tool has the name {name[:80]!r}", _FIELD)
    is_single = parallel_tool_calls is False or name is not None
    return shown, ToolUse(is_required=is_required, is_single=is_single, name=name)


def refuse_functions(body: GenerationBody) -> None:
    """OpenAI's older way to name tools."""
    if body.functions:
        raise UnsupportedParameterError("functions: use tools", "functions")
    if body.function_call not in (None, "none", "auto"):
        raise UnsupportedParameterError("function_call: use tools", "function_call")


def _read_choice(choice: str | dict[str, Any] | None) -> str | None:
    """The name of the only tool that the model may call, if one is given."""
    if isinstance(choice, dict):
        try:
            return NamedToolBody.model_validate(choice).function.name
        except ValidationError:
            raise InvalidRequestError(f"{_FIELD}: {_MODES} with its name", _FIELD) from None
    if choice not in (None, "none", "auto", "required"):
        raise InvalidRequestError(f"{_FIELD}: {_MODES}, not {choice[:40]!r}", _FIELD)
    return None
