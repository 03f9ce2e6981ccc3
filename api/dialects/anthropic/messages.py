"""Anthropic's turns to a chat's messages. Pure.

A turn may take several messages there, and several of one role are one turn here. So the chat has
no two messages of the user, or of the assistant, in a row, which many templates refuse; for the
same reason it has one system message, the first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from api.dialects.anthropic.schema import (
    Block,
    InputMessage,
    ServerBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from jobs.contract.errors import InvalidRequestError
from jobs.contract.requests import FunctionCall, Message, ToolCall

Draft = dict[str, Any]
"""A message of the chat to which turns may still add."""

_BILLING = "x-anthropic-billing-header:"
_BLOCKS_OF = {
    "user": frozenset({"text", "tool_result"}),
    "assistant": frozenset({"text", "tool_use", "thinking", "redacted_thinking"}),
    "system": frozenset({"text"}),
}


def to_messages(system: Sequence[TextBlock], turns: Sequence[InputMessage]) -> list[Message]:
    """The chat; ``InvalidRequestError`` names a block that its turn cannot have."""
    opening = [_text_of(_without_billing(system))]
    messages: list[Draft] = []
    for index, turn in enumerate(turns):
        _check(turn, f"messages[{index}].content")
        if turn.role == "system" and not messages:
            opening.append(_text_of(turn.content))
        elif turn.role == "system":
            _add_system(messages, turn.content)
        elif turn.role == "user":
            _add_user(messages, turn.content)
        else:
            _add_assistant(messages, turn.content)
    text = "\n\n".join(filter(None, opening))
    first = [{"role": "system", "content": text}] if text else []
    return [Message(**draft) for draft in (*first, *messages)]


def _check(turn: InputMessage, place: str) -> None:
    for index, block in enumerate(turn.content):
        is_kept_elsewhere = isinstance(block, ServerBlock) and turn.role != "system"
        if not is_kept_elsewhere and block.type not in _BLOCKS_OF[turn.role]:
            message = f"{place}[{index}]: a turn of the {turn.role} has no {block.type}"
            raise InvalidRequestError(message, f"{place}[{index}]")


def _without_billing(system: Sequence[TextBlock]) -> list[TextBlock]:
    """Without the line in front that Claude Code changes at every request.

    With it no prompt would begin like the one before, and none be found in the prompt cache.
    """
    if not system or not system[0].text.startswith(_BILLING):
        return list(system)
    rest = system[0].text.partition("\n")[2]
    first = [TextBlock(type="text", text=rest)] if rest.strip() else []
    return [*first, *system[1:]]


def _add_system(messages: list[Draft], blocks: Sequence[Block]) -> None:
    """What holds from here on goes into the user's turn: hoisted, it would change the beginning."""
    if text := _text_of(blocks):
        _say(messages, "user", f"<system>\n{text}\n</system>")


def _add_user(messages: list[Draft], blocks: Sequence[Block]) -> None:
    """Results of tools come first in a turn: templates want them right behind their calls."""
    results = [block for block in blocks if isinstance(block, ToolResultBlock)]
    has_said = len(messages) > 1 and messages[-1]["role"] == "user"
    place = len(messages) - 1 if has_said else len(messages)
    messages[place:place] = [_result(block) for block in results]
    text = _text_of(blocks)
    if text or not results:
        _say(messages, "user", text)


def _result(block: ToolResultBlock) -> Draft:
    text = _text_of(block.content)
    content = f"Error: {text}" if block.is_error else text
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}


def _add_assistant(messages: list[Draft], blocks: Sequence[Block]) -> None:
    """A turn of thoughts alone is none. Which thoughts are still needed, templates know."""
    calls = [_call(block) for block in blocks if isinstance(block, ToolUseBlock)]
    text = _text_of(blocks)
    if not text and not calls:
        return
    message = _say(messages, "assistant", text)
    if calls:
        message["tool_calls"] = message.get("tool_calls", []) + calls
    if thoughts := "\n".join(b.thinking for b in blocks if isinstance(b, ThinkingBlock)):
        message["reasoning_content"] = thoughts


def _call(block: ToolUseBlock) -> ToolCall:
    arguments = json.dumps(block.input, ensure_ascii=False)
    return ToolCall(id=block.id, function=FunctionCall(name=block.name, arguments=arguments))


def _say(messages: list[Draft], role: str, text: str) -> Draft:
    """The last message, which goes on with ``text`` if it is of that role and else begins."""
    if not messages or messages[-1]["role"] != role:
        messages.append({"role": role, "content": text})
    elif text:
        before = messages[-1]["content"]
        messages[-1]["content"] = f"{before}\n\n{text}" if before else text
    return messages[-1]


def _text_of(blocks: Sequence[Block]) -> str:
    return "\n".join(block.text for block in blocks if isinstance(block, TextBlock))
