"""ollama's messages to a chat's. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from api.dialects.ollama.schema import OllamaMessage
from api.dialects.openai.generation.messages import to_messages
from api.dialects.openai.generation.schema import MessageBody, ToolCallBody
from jobs.contract.errors import UnsupportedParameterError
from jobs.contract.requests import Message

_ONLY_TEXT = "only texts are read"


def read_messages(messages: Sequence[OllamaMessage]) -> list[Message]:
    """The same messages; ``InvalidRequestError`` names the one at fault."""
    calls = _Calls()
    return to_messages([_to_body(m, f"messages[{i}]", calls) for i, m in enumerate(messages)])


def is_begun(messages: Sequence[Message]) -> bool:
    """Whether the chat ends with the beginning of the answer, which then goes on."""
    last = messages[-1] if messages else None
    is_said = last is not None and last.role == "assistant" and bool(last.content)
    return is_said and not messages[-1].tool_calls


def refuse_images(images: Sequence[object] | None, place: str) -> None:
    """Raise ``UnsupportedParameterError`` if there are any."""
    if images:
        raise UnsupportedParameterError(f"{place}: {_ONLY_TEXT}", place)


def _to_body(message: OllamaMessage, place: str, calls: _Calls) -> MessageBody:
    refuse_images(message.images, f"{place}.images")
    called = calls.named(message.tool_calls or ())
    changes = {
        "content": message.content if message.content is not None or called else "",
        "reasoning_content": message.thinking or message.reasoning_content,
        "tool_calls": called or None,
    }
    if message.role == "tool":
        changes |= {"tool_call_id": calls.answered(message), "name": message.tool_name}
    return message.model_copy(update=changes)


class _Calls:
    """Ids of calls that have none, and which call a result belongs to."""

    def __init__(self) -> None:
        self._num_named = 0
        self._open: list[tuple[str, str]] = []  # id and name

    def named(self, calls: Iterable[ToolCallBody]) -> list[ToolCallBody]:
        return [self._named(call) for call in calls]

    def _named(self, call: ToolCallBody) -> ToolCallBody:
        self._num_named += 1
        call = call.model_copy(update={"id": call.id or f"call_{self._num_named}"})
        self._open.append((str(call.id), call.function.name if call.function else ""))
        return call

    def answered(self, result: OllamaMessage) -> str | None:
        """The id that the result has, else that of the first open call of its tool, or of any."""
        given, name = result.tool_call_id, result.tool_name or result.name
        found = [one for one in self._open if one[0] == given]
        found = found or [one for one in self._open if one[1] == name] or self._open[:1]
        if found:
            self._open.remove(found[0])
        return given or (found[0][0] if found else None)
