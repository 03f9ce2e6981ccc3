"""LiteLLM, as `openai/…` with an address of its own."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import litellm
from pydantic import BaseModel

if TYPE_CHECKING:
    from tests.clients.programs.run import Target

litellm.suppress_debug_info = True  # else it advertises itself on standard output

_COUNT = [{"role": "user", "content": "Count from 1 to 5."}]
_SUM = [{"role": "user", "content": "What is 2 + 3?"}]
_ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


class _Sum(BaseModel):
    """The form of an answer."""

    a: int
    b: int
    total: int


def chat(target: Target) -> None:
    answer = litellm.completion(messages=_SUM, temperature=0, **_options(target))
    assert answer.choices[0].message.content == "2 + 3 = 5"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens > 8


def chat_asynchronous(target: Target) -> None:
    answer = asyncio.run(litellm.acompletion(messages=_SUM, temperature=0, **_options(target)))
    assert answer.choices[0].message.content == "2 + 3 = 5"


def stream(target: Target) -> None:
    chunks = list(
        litellm.completion(
            messages=_COUNT,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            **_options(target),
        )
    )
    whole = litellm.stream_chunk_builder(chunks, messages=_COUNT)
    assert whole.choices[0].message.content == "1, 2, 3, 4, 5"
    assert whole.usage.completion_tokens > 8


def hosted_vllm(target: Target) -> None:
    options = {**_options(target), "model": f"hosted_vllm/{target.model}"}
    answer = litellm.completion(messages=_SUM, temperature=0, **options)
    assert answer.choices[0].message.content == "2 + 3 = 5"


def structured_output(target: Target) -> None:
    messages = [{"role": "user", "content": "What is 2 + 3? Answer in JSON."}]
    answer = litellm.completion(
        messages=messages, temperature=0, response_format=_Sum, **_options(target)
    )
    parsed = _Sum.model_validate_json(answer.choices[0].message.content)
    assert parsed == _Sum(a=2, b=3, total=5)


def tools(target: Target) -> None:
    asked: Any = {"tools": [_ADD], "temperature": 0, **_options(target)}
    message = litellm.completion(messages=_SUM, **asked).choices[0].message
    [call] = message.tool_calls
    assert call.function.name == "add"
    assert json.loads(call.function.arguments) == {"a": 2, "b": 3}
    result = {"role": "tool", "tool_call_id": call.id, "content": "5"}
    answer = litellm.completion(messages=[*_SUM, message, result], **asked)
    assert answer.choices[0].message.content == "2 + 3 = 5"


def tools_stream(target: Target) -> None:
    chunks = list(
        litellm.completion(
            messages=_SUM, tools=[_ADD], temperature=0, stream=True, **_options(target)
        )
    )
    whole = litellm.stream_chunk_builder(chunks, messages=_SUM)
    [call] = whole.choices[0].message.tool_calls
    assert call.function.name == "add"
    assert json.loads(call.function.arguments) == {"a": 2, "b": 3}
    assert whole.choices[0].finish_reason == "tool_calls"


def responses(target: Target) -> None:
    answer = litellm.responses(input="What is 2 + 3?", temperature=0, **_options(target))
    assert answer.output[0].content[0].text == "2 + 3 = 5"


def embeddings(target: Target) -> None:
    answer = litellm.embedding(input=["Hello!", "What is 2 + 3?"], **_options(target))
    assert [entry["index"] for entry in answer.data] == [0, 1]
    assert len(answer.data[0]["embedding"]) > 8


def errors(target: Target) -> None:
    wrong: Any = {"messages": _SUM, "temperature": 3, **_options(target)}
    error = target.error_of(litellm.BadRequestError, litellm.completion, **wrong)
    assert "temperature" in str(error)


def _options(target: Target) -> Any:
    return {
        "model": f"openai/{target.model}",
        "api_base": target.openai_url,
        "api_key": "none",
        "num_retries": 0,
        "timeout": 60,
    }
