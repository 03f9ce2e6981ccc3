"""The message format that a chat template expects, found by rendering small chats at load.

Templates differ: content is a text or a list of parts, arguments of tool calls are an object or
JSON text, a system message is possible or not, call ids have any form or nine letters, optional
fields of tools may be missing or not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobs.contract.errors import InvalidRequestError

Message = dict[str, Any]
Render = Callable[[list[Message], list[Message] | None], str]
"""``render(messages, tools)``; raises ``InvalidRequestError`` if the template refuses."""

_WORD, _OTHER = "needle", "thimble"
_SHORT_ID = "abcdefgh9"
_LONG_ID = "call_0123456789abcdef01234567"
_ID_LENGTH = 9
_TOOL: Message = {
    "type": "function",
    "function": {
        "name": "probe",
        "description": "A probe.",
        "parameters": {"type": "object", "properties": {_WORD: {"type": "string"}}},
    },
}
_BARE_TOOLS: list[Message] = [
    {"type": "function", "function": {"name": "probe"}},
    {
        "type": "function",
        "function": {
            "name": "probe",
            "parameters": {"type": "object", "properties": {_WORD: {"type": "string"}}},
        },
    },
]


@dataclass(frozen=True, slots=True)
class TemplateTraits:
    """``reads_parts``: content is a list of parts. ``has_system``: system messages are possible.
    ``reads_text_arguments``: arguments of calls are JSON text. ``needs_short_ids``: ids of calls
    must have nine letters and digits, as in Mistral's templates. ``needs_full_tools``: a tool must
    have a description and parameters, which are optional in OpenAI's API."""

    reads_parts: bool = False
    has_system: bool = True
    reads_text_arguments: bool = False
    needs_short_ids: bool = False
    needs_full_tools: bool = False

    def adapt_tools(self, tools: Sequence[Mapping[str, Any]] | None) -> list[Message] | None:
        """Copies of the tools in the format that the template expects; ``None`` for none."""
        if not tools:
            return None
        return [_full_tool(tool) if self.needs_full_tools else dict(tool) for tool in tools]

    def adapt(self, messages: Sequence[Message]) -> list[Message]:
        """Copies of the messages in the format that the template expects."""
        adapted = [dict(message) for message in messages]
        if not self.has_system:
            adapted = _merged_system(adapted)
        for message in adapted:
            if message.get("tool_calls"):
                message["tool_calls"] = [self._call(call) for call in message["tool_calls"]]
            if self.needs_short_ids:
                _shorten_ids(message)
            if self.reads_parts and isinstance(message.get("content"), str):
                message["content"] = _parts(message["content"])
        return adapted

    def _call(self, call: Message) -> Message:
        function = dict(call["function"])
        given = function.get("arguments")
        if self.reads_text_arguments:
            if not isinstance(given, str):
                given = json.dumps(given or {}, ensure_ascii=False)
            function["arguments"] = given if given.strip() else "{}"
        else:
            function["arguments"] = _to_object(given)
        return {**call, "function": function}


def find_traits(render: Render) -> TemplateTraits:
    """The traits of the template that ``render`` renders."""
    reads_parts = not _shows(render, [_user(_WORD)]) and _shows(render, [_user(_parts(_WORD))])
    plain = TemplateTraits(reads_parts=reads_parts)
    short, long = (_calls(plain, {_WORD: _OTHER}, call_id) for call_id in (_SHORT_ID, _LONG_ID))
    needs_short_ids = _rendered(render, long) is None and _rendered(render, short) is not None
    return TemplateTraits(
        reads_parts=reads_parts,
        has_system=_has_system(render, plain),
        reads_text_arguments=_reads_text_arguments(render, plain),
        needs_short_ids=needs_short_ids,
        needs_full_tools=_needs_full_tools(render, plain),
    )


def _has_system(render: Render, traits: TemplateTraits) -> bool:
    """False only if a chat is rendered without a system message but not with one."""
    system = {"role": "system", "content": _OTHER}
    if _rendered(render, traits.adapt([_user(_WORD)])) is None:
        return True
    text = _rendered(render, traits.adapt([system, _user(_WORD)]))
    return text is not None and _OTHER in text.lower()


def _reads_text_arguments(render: Render, traits: TemplateTraits) -> bool:
    as_object = _rendered(render, _calls(traits, {_WORD: _OTHER}, _SHORT_ID))
    reads_text = replace(traits, reads_text_arguments=True)
    as_text = _rendered(render, _calls(reads_text, {_WORD: _OTHER}, _SHORT_ID))
    if as_text is None or f'{{"{_WORD}": "{_OTHER}"}}' not in as_text:
        return False
    # As an object it is rendered as a Python dict, or not at all.
    return as_object is None or f"'{_WORD}'" in as_object or _OTHER not in as_object


def _needs_full_tools(render: Render, traits: TemplateTraits) -> bool:
    messages = traits.adapt([_user(_WORD)])
    if _rendered(render, messages, _BARE_TOOLS) is not None:
        return False
    return _rendered(render, messages, [*map(_full_tool, _BARE_TOOLS)]) is not None


def _full_tool(tool: Mapping[str, Any]) -> Message:
    """The tool with all fields of a function, and a description of each parameter."""
    function = tool.get("function")
    if not isinstance(function, Mapping):
        return dict(tool)
    schema = function.get("parameters")
    return {**tool, "function": {"description": "", **function, "parameters": _full_schema(schema)}}


def _full_schema(schema: Any) -> Message:
    given = schema if isinstance(schema, Mapping) else {}
    properties = given.get("properties")
    fields = properties if isinstance(properties, Mapping) else {}
    full = {
        name: {"description": "", **(field if isinstance(field, Mapping) else {})}
        for name, field in fields.items()
    }
    return {"type": "object", **given, "properties": full}


def _calls(traits: TemplateTraits, arguments: Any, call_id: str) -> list[Message]:
    call = {
        "id": call_id,
        "type": "function",
        "function": {"name": "probe", "arguments": arguments},
    }
    messages = [
        _user(_WORD),
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "done", "tool_call_id": call_id, "name": "probe"},
    ]
    return traits.adapt(messages)


def _user(content: Any) -> Message:
    return {"role": "user", "content": content}


def _shows(render: Render, messages: list[Message]) -> bool:
    text = _rendered(render, messages)
    return text is not None and _WORD in text.lower() and "'type'" not in text


def _rendered(
    render: Render, messages: list[Message], tools: list[Message] | None = None
) -> str | None:
    """The rendered chat; with a tool if it has calls. ``None`` if the template refuses."""
    has_calls = any("tool_calls" in message for message in messages)
    try:
        return render(messages, [_TOOL] if has_calls else tools)
    except InvalidRequestError:
        return None


def _to_object(given: Any) -> Any:
    """Arguments as an object; empty for no text; a text that is not a JSON object stays a text."""
    if not isinstance(given, str):
        return given or {}
    if not given.strip():
        return {}
    try:
        value = json.loads(given)
    except (ValueError, RecursionError):
        return given
    return value if isinstance(value, dict) else given


def _parts(text: str) -> list[Message]:
    return [{"type": "text", "text": text}]


def _merged_system(messages: list[Message]) -> list[Message]:
    """Put the texts of leading system messages at the beginning of the first user turn."""
    texts = []
    rest = list(messages)
    while rest and rest[0].get("role") in ("system", "developer"):
        texts.append(rest.pop(0)["content"])
    if not texts:
        return messages
    if not rest or rest[0].get("role") != "user":
        rest.insert(0, {"role": "user", "content": ""})
    rest[0]["content"] = "\n".join(filter(None, [*texts, rest[0]["content"]]))
    return rest


def _shorten_ids(message: Message) -> None:
    if "tool_call_id" in message:
        message["tool_call_id"] = _short_id(message["tool_call_id"])
    if message.get("tool_calls"):
        message["tool_calls"] = [_with_short_id(call) for call in message["tool_calls"]]


def _with_short_id(call: Mapping[str, Any]) -> Message:
    return {**call, "id": _short_id(call["id"])} if "id" in call else dict(call)


def _short_id(call_id: str) -> str:
    """The id itself if it has nine letters and digits, else nine hexadecimal digits of its hash."""
    is_short = len(call_id) == _ID_LENGTH and call_id.isascii() and call_id.isalnum()
    return call_id if is_short else hashlib.sha256(call_id.encode()).hexdigest()[:_ID_LENGTH]
