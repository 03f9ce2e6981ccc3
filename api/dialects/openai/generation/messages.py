"""A chat's messages as clients send them, to those that a chat template reads. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from api.dialects.openai.generation.schema import (
    FunctionBody,
    MessageBody,
    PartBody,
    ToolCallBody,
)
from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.requests import FunctionCall, Message, ToolCall

_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_THOUGHTS = frozenset({"thinking", "redacted_thinking", "reasoning"})
_ROLES_WITHOUT_TEXT = frozenset({"assistant", "tool", "function"})
_ROLES = {"developer": "system", "function": "tool"}


def to_messages(messages: Sequence[MessageBody]) -> list[Message]:
    """The same messages with text content; ``InvalidRequestError`` names the one at fault."""
    return [_to_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _to_message(message: MessageBody, place: str) -> Message:
    calls = _tool_calls(message, place)
    content = _content(message, f"{place}.content")
    if content is None and not calls:
        if not _may_be_empty(message):
            raise InvalidRequestError(f"{place}.content is required", f"{place}.content")
        content = ""
    return Message(
        role=_ROLES.get(message.role, message.role),
        content=content,
        name=message.name,
        tool_calls=calls,
        tool_call_id=message.tool_call_id,
        reasoning_content=_reasoning(message),
    )


def _may_be_empty(message: MessageBody) -> bool:
    """An answer that was cut before its text, or was all thoughts; a tool that gave nothing."""
    is_null = "content" in message.model_fields_set
    is_thought = message.role == "assistant" and _reasoning(message) is not None
    return is_thought or (is_null and message.role in _ROLES_WITHOUT_TEXT)


def _reasoning(message: MessageBody) -> str | None:
    """Earlier thoughts; some clients have an object of their own under the shorter name."""
    text = message.reasoning_content or message.reasoning
    return text if isinstance(text, str) and text else None


def _content(message: MessageBody, place: str) -> str | None:
    content = message.content
    if content is None or content == "":
        return message.refusal or content
    if isinstance(content, str):
        return content
    texts = [_part(part, f"{place}[{index}]") for index, part in enumerate(content)]
    return "\n".join(text for text in texts if text is not None)


def _part(part: PartBody, place: str) -> str | None:
    """The part's text; ``None`` for thoughts, which templates do not read here."""
    if part.type in _THOUGHTS:
        return None
    if part.type == "refusal":
        return part.refusal or part.text
    if part.type not in _TEXT_PARTS or part.text is None:
        reason = f"content parts of type {part.type[:40]!r} are not supported, only text"
        raise UnsupportedParameterError(reason, place)
    return part.text


def _tool_calls(message: MessageBody, place: str) -> list[ToolCall] | None:
    if message.function_call is not None and not message.tool_calls:
        return [ToolCall(id="", function=_function(message.function_call))]
    calls = message.tool_calls or ()
    return [_call(call, f"{place}.tool_calls[{i}]") for i, call in enumerate(calls)] or None


def _call(call: ToolCallBody, place: str) -> ToolCall:
    if call.custom is not None:
        custom = json.dumps({"input": call.custom.input}, ensure_ascii=False)
        return ToolCall(id=call.id or "", function=FunctionCall(call.custom.name, custom))
    if call.function is None:
        raise InvalidRequestError(f"{place}.function is required", f"{place}.function")
    return ToolCall(id=call.id or "", function=_function(call.function))


def _function(function: FunctionBody) -> FunctionCall:
    given = function.arguments or {}
    text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    return FunctionCall(name=function.name, arguments=text)
