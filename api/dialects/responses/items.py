"""Items of ``input`` in the one form that is stored, listed and read by the chat. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from api.dialects.responses import foreign_items
from api.dialects.responses.schema import (
    InputCall,
    InputCallOutput,
    InputItem,
    InputMessage,
    InputPart,
    InputReasoning,
    InputReference,
)
from api.web.errors import checked
from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError

Item = dict[str, Any]
REFERENCE = "item_reference"
"""The type of an item that only names a stored one."""

_TEXT_PARTS = frozenset({"text", "input_text", "output_text", "reasoning_text", "refusal"})


def to_items(value: str | Sequence[Any] | None, suffix: str) -> list[Item]:
    """The items that ``input`` says; those without an id get one that ends in ``suffix``.

    ``InvalidRequestError`` names the item at fault, as ``input[2].content``.
    """
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    return [_to_item(item, index, suffix) for index, item in enumerate(value or ())]


def _to_item(item: Any, index: int, suffix: str) -> Item:
    if not isinstance(item, dict):
        raise InvalidRequestError(f"input[{index}]: an item is an object", f"input[{index}]")
    kind = item.get("type") or ("message" if "role" in item else _reference_kind(item))
    convert = _KINDS.get(kind) if isinstance(kind, str) else None
    if convert is None:
        name = f"input[{index}].type"
        raise UnsupportedParameterError(
            f"{name}: items of type {str(kind)[:40]!r} are not supported", name
        )
    return convert(item, index, f"{index:04x}{suffix}")


def _reference_kind(item: dict[str, Any]) -> str | None:
    """A reference may be an id alone."""
    return REFERENCE if item.keys() - {"type"} == {"id"} else None


def _message(value: dict[str, Any], index: int, suffix: str) -> Item:
    item = checked(InputMessage, value, "input", index)
    text = _text(item.content, f"input[{index}].content")
    return {
        "id": item.id or f"msg_{suffix}",
        "type": "message",
        "role": item.role,
        "status": "completed",
        "content": [output_text(text) if item.role == "assistant" else _input_text(text)],
    }


def _call(value: dict[str, Any], index: int, suffix: str) -> Item:
    item = checked(InputCall, value, "input", index)
    return {
        "id": item.id or f"fc_{suffix}",
        "type": "function_call",
        "call_id": item.call_id,
        "name": item.name,
        "arguments": item.arguments,
        "status": "completed",
    }


def _call_output(value: dict[str, Any], index: int, suffix: str) -> Item:
    item = checked(InputCallOutput, value, "input", index)
    return {
        "id": item.id or f"fco_{suffix}",
        "type": "function_call_output",
        "call_id": item.call_id,
        "output": _text(item.output, f"input[{index}].output"),
        "status": "completed",
    }


def _reasoning(value: dict[str, Any], index: int, suffix: str) -> Item:
    item = checked(InputReasoning, value, "input", index)
    text = _text(item.content or [], f"input[{index}].content")
    return {
        "id": item.id or f"rs_{suffix}",
        "type": "reasoning",
        "summary": [],
        "content": [reasoning_text(text)] if text else [],
    }


def _reference(value: dict[str, Any], index: int, suffix: str) -> Item:
    return {"type": REFERENCE, "id": checked(InputReference, value, "input", index).id}


def _foreign(value: dict[str, Any], index: int, suffix: str) -> Item:
    item = checked(InputItem, value, "input", index)
    return {**value, "id": item.id or f"item_{suffix}"}


_KINDS: dict[str, Callable[[dict[str, Any], int, str], Item]] = {
    REFERENCE: _reference,
    **dict.fromkeys(foreign_items.KINDS, _foreign),
    "message": _message,
    "function_call": _call,
    "function_call_output": _call_output,
    "reasoning": _reasoning,
}


def output_text(text: str) -> dict[str, Any]:
    """The content part of that name."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def reasoning_text(text: str) -> dict[str, Any]:
    """The content part of that name."""
    return {"type": "reasoning_text", "text": text}


def _input_text(text: str) -> dict[str, Any]:
    return {"type": "input_text", "text": text}


def _text(content: str | list[InputPart], place: str) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(_part_text(part, f"{place}[{i}]") for i, part in enumerate(content))


def _part_text(part: InputPart, place: str) -> str:
    text = part.refusal if part.type == "refusal" else part.text
    if part.type not in _TEXT_PARTS or text is None:
        raise UnsupportedParameterError(
            f"{place}: parts of type {part.type[:40]!r} are not supported, only text", place
        )
    return text
