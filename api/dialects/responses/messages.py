"""Items to a chat's messages. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from api.dialects.responses.foreign_items import readable
from api.dialects.responses.items import Item
from jobs.contract.requests import FunctionCall, Message, ToolCall

_SYSTEM = frozenset({"system", "developer"})
Draft = dict[str, Any]
"""A message of the chat to which items may still add."""


def to_messages(instructions: str | None, items: Sequence[Item]) -> list[Message]:
    """The chat that ``items`` are. Thoughts go along with what was said next: which of them the
    model sees again is for its template to say.

    The instructions and the system items that open the chat become one message: many templates
    take no second one.
    """
    system = [instructions] if instructions else []
    messages: list[Draft] = []
    thoughts = ""
    for item in chain.from_iterable(map(readable, items)):
        if item["type"] == "reasoning":
            thoughts = _text_of(item)
        elif item["type"] == "message" and item["role"] in _SYSTEM and not messages:
            system.append(_text_of(item))
        else:
            _add(messages, item, thoughts)
            thoughts = ""
    opening = [{"role": "system", "content": "\n\n".join(system)}] if system else []
    return [Message(**draft) for draft in (*opening, *messages)]


def _add(messages: list[Draft], item: Item, thoughts: str) -> None:
    kind = item["type"]
    if kind == "message":
        role = "system" if item["role"] in _SYSTEM else item["role"]
        messages.append({"role": role, "content": _text_of(item)})
    elif kind == "function_call":
        _add_call(messages, item)
    elif kind == "function_call_output":
        output = {"tool_call_id": item["call_id"], "content": item["output"]}
        messages.append({"role": "tool", **output})
    if thoughts and messages[-1]["role"] == "assistant":
        messages[-1]["reasoning_content"] = thoughts


def _add_call(messages: list[Draft], item: Item) -> None:
    """A call belongs to the assistant's message before it, as do those made along with it."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    function = FunctionCall(name=item["name"], arguments=item["arguments"])
    call = ToolCall(id=item["call_id"], function=function)
    messages[-1].setdefault("tool_calls", []).append(call)


def _text_of(item: Item) -> str:
    return "\n".join(part["text"] for part in item["content"])
