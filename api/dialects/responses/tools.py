"""Tools of the Responses API, which are flat, to those of a chat. Pure."""

from __future__ import annotations

from typing import Any

from api.dialects.responses.schema import FunctionToolBody, ResponsePromptBody
from api.web.errors import checked
from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError

_FREE = frozenset({"none", "auto", "required"})
Choice = str | dict[str, Any] | None


def function_tools(body: ResponsePromptBody) -> list[FunctionToolBody]:
    """The functions among the tools.

    OpenAI runs the other kinds itself, and agents list them without being asked: they are left
    out, and left out of the response's ``tools`` too.
    """
    return [
        checked(FunctionToolBody, tool, "tools", index)
        for index, tool in enumerate(body.tools or ())
        if tool.get("type") == "function"
    ]


def to_tool_fields(body: ResponsePromptBody) -> dict[str, Any]:
    """``tools``, ``tool_choice`` and ``parallel_tool_calls`` as a chat has them."""
    choice, allowed = _read_choice(body.tool_choice)
    tools = [
        {"type": "function", "function": tool.model_dump(exclude_none=True, exclude={"type"})}
        for tool in function_tools(body)
        if allowed is None or tool.name in allowed
    ]
    if not tools:
        # Nothing to choose from; what asks for a call all the same is for the chat to refuse.
        return {} if choice in (None, "none", "auto") else {"tool_choice": choice}
    fields = {"tool_choice": choice, "parallel_tool_calls": body.parallel_tool_calls}
    return {"tools": tools, **fields}


def _read_choice(choice: Choice) -> tuple[Choice, set[str] | None]:
    """A chat's ``tool_choice``, and the names it is limited to (``None``: it is not)."""
    if choice is None or (isinstance(choice, str) and choice in _FREE):
        return choice, None
    kind = choice.get("type") if isinstance(choice, dict) else None
    if isinstance(choice, dict) and kind == "function":
        return {"type": "function", "function": {"name": _name_of(choice)}}, None
    if isinstance(choice, dict) and kind == "allowed_tools":
        return _read_allowed(choice)
    message = "tool_choice: none, auto, required, a function or allowed_tools"
    raise UnsupportedParameterError(message, "tool_choice")


def _read_allowed(choice: dict[str, Any]) -> tuple[Choice, set[str]]:
    mode, tools = choice.get("mode", "auto"), choice.get("tools")
    if mode not in ("auto", "required") or not isinstance(tools, list):
        message = "tool_choice: allowed_tools has a mode, auto or required, and tools"
        raise InvalidRequestError(message, "tool_choice")
    functions = [t for t in tools if isinstance(t, dict) and t.get("type") == "function"]
    return mode, {_name_of(tool) for tool in functions}


def _name_of(tool: dict[str, Any]) -> str:
    name = tool.get("name")
    if not isinstance(name, str):
        raise InvalidRequestError("tool_choice: a function has a name", "tool_choice")
    return name
