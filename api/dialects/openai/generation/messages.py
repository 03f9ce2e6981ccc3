"""A chat's messages as clients send them, to those that a chat template reads. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from api.dialects.openai.generation.schema import FunctionBody, MessageBody, PartBody, ToolCallBody
from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.requests import FunctionCall, Message, ToolCall

_TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal"})


def to_messages(messages: Sequence[MessageBody]) -> list[Message]:
    """The same messages with text content; ``InvalidRequestError`` names the one at fault."""
    return [_to_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _to_message(message: MessageBody, place: str) -> Message:
    content = _content(message.content, f"{place}.content")
    if content is None and not message.tool_calls:
        raise InvalidRequestError(f"{place}.content is required", f"{place}.content")
    return Message(
        role="system" if message.role == "developer" else message.role,
        content=content,
        name=message.name,
        tool_calls=_tool_calls(message.tool_calls),
        tool_call_id=message.tool_call_id,
        reasoning_content=_reasoning(message),
    )


def _reasoning(message: MessageBody) -> str | None:
    """Earlier thoughts; some clients have an object of their own under the shorter name."""
    text = message.reasoning_content or message.reasoning
    return text if isinstance(text, str) and text else None


def _content(content: str | list[PartBody] | None, place: str) -> str | None:
    if not isinstance(content, list):
        return content
    for index, part in enumerate(content):
        if part.type not in _TEXT_PARTS or part.text is None:
            raise UnsupportedParameterError(
                f"content parts of type {part.type[:40]!r} are not supported, only text",
                f"{place}[{index}]",
            )
    return "\n".join(part.text or "" for part in content)


def _tool_calls(calls: list[ToolCallBody] | None) -> list[ToolCall] | None:
    if not calls:
        return None
    return [ToolCall(id=call.id, function=_function(call.function)) for call in calls]


def _function(function: FunctionBody) -> FunctionCall:
    arguments = function.arguments
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return FunctionCall(name=function.name, arguments=text)
