"""Items of tools that run elsewhere, as they stand in the histories of clients. Pure.

Calls of the client's own tools and their outputs are told to the model as calls of functions. What
a server did by itself (a search, a list of tools) is kept in the history, and not read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Item = dict[str, Any]

_UNREAD = frozenset(
    "additional_tools code_interpreter_call compaction compaction_trigger computer_call "
    "computer_call_output context_compaction file_search_call ghost_snapshot image_generation_call "
    "mcp_approval_request mcp_approval_response mcp_list_tools tool_search_call tool_search_output "
    "web_search_call".split()
)


def _call(name: str | None, field: str) -> Callable[[Item], list[Item]]:
    """A call of the function ``name`` (``None``: as it says); its arguments are in ``field``."""

    def read(item: Item) -> list[Item]:
        given = item.get(field)
        arguments = {field: given} if isinstance(given, str) else given
        call = {"call_id": _id_of(item), "name": name or str(item.get("name") or "")}
        written = json.dumps(arguments or {}, ensure_ascii=False)
        return [{"type": "function_call", **call, "arguments": written}]

    return read


def _output(item: Item) -> list[Item]:
    shown = item.get("output", item.get("status"))
    return [{"type": "function_call_output", "call_id": _id_of(item), "output": _text(shown)}]


def _mcp_call(item: Item) -> list[Item]:
    """A call that a server made, with what came of it."""
    arguments, name = item.get("arguments"), str(item.get("name") or "")
    call = {"type": "function_call", "call_id": _id_of(item), "name": name}
    written = arguments if isinstance(arguments, str) and arguments else "{}"
    return [{**call, "arguments": written}, *_output({**item, "output": _result(item)})]


def _result(item: Item) -> Any:
    return item.get("output") if item.get("error") is None else {"error": item["error"]}


_READ: dict[str, Callable[[Item], list[Item]]] = {
    "custom_tool_call": _call(None, "input"),
    "custom_tool_call_output": _output,
    "local_shell_call": _call("local_shell", "action"),
    "local_shell_call_output": _output,
    "shell_call": _call("shell", "action"),
    "shell_call_output": _output,
    "apply_patch_call": _call("apply_patch", "operation"),
    "apply_patch_call_output": _output,
    "mcp_call": _mcp_call,
}
KINDS = _UNREAD | _READ.keys()
"""The types of such items."""


def readable(item: Item) -> list[Item]:
    """What the model can read of an item, as calls of functions and their outputs."""
    kind = item["type"]
    if kind in KINDS:
        return _READ[kind](item) if kind in _READ else []
    return [item]


def _id_of(item: Item) -> str:
    return str(item.get("call_id") or item.get("id") or "")


def _text(value: Any) -> str:
    """A text, the texts of parts, or else the value's JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, dict) and "text" in part for part in value):
        return "\n".join(str(part["text"]) for part in value)
    return "" if value is None else json.dumps(value, ensure_ascii=False)
