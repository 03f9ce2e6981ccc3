"""openai-python: the Responses API. A field off its type raises."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from openai import BadRequestError, NotFoundError, OpenAI, pydantic_function_tool
from pydantic import BaseModel

if TYPE_CHECKING:
    from tests.clients.programs.run import Target

_ADD: Any = {
    "type": "function",
    "name": "add",
    "description": "Add two numbers.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
    "strict": True,
}


class _Sum(BaseModel):
    """The form of an answer."""

    a: int
    b: int
    total: int


class _AddArguments(BaseModel):
    """Add two numbers."""

    a: int
    b: int


def whole(target: Target) -> None:
    client = _client(target)
    answer = client.responses.create(model=target.model, input="What is 2 + 3?", temperature=0)
    assert (answer.output_text, answer.status) == ("2 + 3 = 5", "completed")
    assert client.responses.retrieve(answer.id) == answer
    counted = client.responses.input_tokens.count(model=target.model, input="What is 2 + 3?")
    assert counted.input_tokens == answer.usage.input_tokens
    client.responses.delete(answer.id)
    target.error_of(NotFoundError, client.responses.retrieve, response_id=answer.id)


def stream(target: Target) -> None:
    events = list(
        _client(target).responses.create(
            model=target.model, input="Count from 1 to 5.", temperature=0, stream=True, store=False
        )
    )
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output_text == "1, 2, 3, 4, 5"


def stream_helper(target: Target) -> None:
    with _client(target).responses.stream(
        model=target.model, input="Count from 1 to 5.", temperature=0
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == "1, 2, 3, 4, 5"


def conversation(target: Target) -> None:
    client = _client(target)
    first = client.responses.create(model=target.model, input="Hello!", temperature=0)
    second = client.responses.create(
        model=target.model, input="What is 2 + 3?", previous_response_id=first.id, temperature=0
    )
    resent: Any = [
        {"role": "user", "content": "Hello!"},
        *(item.model_dump(exclude_none=True) for item in first.output),
        {"role": "user", "content": "What is 2 + 3?"},
    ]
    third = client.responses.create(model=target.model, input=resent, temperature=0, store=False)
    assert second.output_text == third.output_text == "2 + 3 = 5"
    assert second.usage.input_tokens == third.usage.input_tokens


def background(target: Target) -> None:
    client = _client(target)
    queued = client.responses.create(
        model=target.model, input="Count from 1 to 5.", temperature=0, background=True
    )
    followed = list(client.responses.retrieve(queued.id, stream=True))
    assert followed[-1].response.output_text == "1, 2, 3, 4, 5"
    rest = client.responses.retrieve(queued.id, stream=True, starting_after=5)
    assert list(rest) == followed[6:]
    assert client.responses.cancel(queued.id).status == "completed"


def structured_output(target: Target) -> None:
    asked: Any = {"model": target.model, "input": "What is 2 + 3? Answer in JSON."}
    client = _client(target)
    answer = client.responses.parse(**asked, temperature=0, text_format=_Sum)
    assert answer.output_parsed == _Sum(a=2, b=3, total=5)
    with client.responses.stream(**asked, temperature=0, text_format=_Sum) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_parsed == _Sum(a=2, b=3, total=5)


def tools(target: Target) -> None:
    client = _client(target)
    asked: Any = {"model": target.model, "tools": [_ADD], "temperature": 0}
    first = client.responses.create(input="What is 2 + 3?", **asked)
    [call] = first.output
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("add", {"a": 2, "b": 3})
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "5"}
    last = client.responses.create(input=[result], previous_response_id=first.id, **asked)
    assert last.output_text == "2 + 3 = 5"
    resent = [{"role": "user", "content": "What is 2 + 3?"}, call.model_dump(), result]
    assert client.responses.create(input=resent, **asked).output_text == "2 + 3 = 5"


def tools_stream(target: Target) -> None:
    tool: Any = pydantic_function_tool(_AddArguments, name="add", description="Add two numbers.")
    flat: Any = {"type": "function", **tool["function"]}
    with _client(target).responses.stream(
        model=target.model, input="What is 2 + 3?", tools=[flat], temperature=0
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert "response.function_call_arguments.delta" in kinds
    assert "response.function_call_arguments.done" in kinds
    assert "response.output_text.delta" not in kinds
    [call] = final.output
    assert json.loads(call.arguments) == {"a": 2, "b": 3}


def errors(target: Target) -> None:
    wrong: Any = {"model": target.model, "input": "x", "max_output_tokens": 0}
    error = target.error_of(BadRequestError, _client(target).responses.create, **wrong)
    assert error.param == "max_output_tokens"


def _client(target: Target) -> OpenAI:
    return OpenAI(
        base_url=target.openai_url,
        api_key="none",
        max_retries=0,
        timeout=60,
        _strict_response_validation=True,
    )
