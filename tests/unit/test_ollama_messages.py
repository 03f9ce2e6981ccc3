"""ollama's messages to a chat's."""

from __future__ import annotations

from typing import Any

import pytest

from api.dialects.ollama.messages import is_begun, read_messages
from api.dialects.ollama.schema import OllamaMessage
from jobs.contract.errors import InvalidRequestError
from jobs.contract.requests import Message


def read(*messages: dict[str, Any]) -> list[Message]:
    return read_messages([OllamaMessage.model_validate(message) for message in messages])


def call(name: str, **more: Any) -> dict[str, Any]:
    return {**more, "function": {"name": name, "arguments": {"a": 1}}}


def test_thoughts_and_empty_texts_are_kept_as_they_are() -> None:
    found = read(
        {"role": "system", "content": ""},
        {"role": "user"},
        {"role": "assistant", "content": "Hi", "thinking": "hm", "images": None},
    )
    assert [(m.role, m.content, m.reasoning_content) for m in found] == [
        ("system", "", None), ("user", "", None), ("assistant", "Hi", "hm"),
    ]  # fmt: skip


def test_calls_without_ids_get_some_and_results_find_their_calls() -> None:
    found = read(
        {"role": "assistant", "content": "", "tool_calls": [call("add"), call("now")]},
        {"role": "tool", "tool_name": "now", "content": "12:00"},
        {"role": "tool", "tool_name": "add", "content": "5"},
        {"role": "assistant", "tool_calls": [call("add", id="x")]},
        {"role": "tool", "content": "7"},
    )
    ids = [[one.id for one in message.tool_calls or ()] for message in found]
    assert ids == [["call_1", "call_2"], [], [], ["x"], []]
    assert [message.tool_call_id for message in found] == [None, "call_2", "call_1", None, "x"]
    assert [message.name for message in found] == [None, "now", "add", None, None]
    assert found[0].tool_calls[0].function.arguments == '{"a": 1}'


def test_ids_of_the_client_are_kept() -> None:
    found = read(
        {"role": "assistant", "tool_calls": [call("add", id="x"), call("add", id="y")]},
        {"role": "tool", "tool_call_id": "y", "content": "7"},
        {"role": "tool", "tool_name": "add", "content": "8"},
        {"role": "tool", "tool_call_id": "z", "content": "9"},
    )
    assert [message.tool_call_id for message in found[1:]] == ["y", "x", "z"]


def test_an_image_is_refused_where_it_is() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read({"role": "user", "content": "a"}, {"role": "user", "content": "b", "images": ["x"]})
    assert caught.value.param == "messages[1].images"


def test_only_an_assistants_text_at_the_end_goes_on() -> None:
    said = {"role": "assistant", "content": "The answer is"}
    asked = {"role": "user", "content": "a"}
    assert is_begun(read(asked, said))
    assert not is_begun(read(said, asked))
    assert not is_begun(read(asked, {**said, "tool_calls": [call("add")]}))
    assert not is_begun(read(asked, {"role": "assistant", "content": ""}))
    assert not is_begun([])
