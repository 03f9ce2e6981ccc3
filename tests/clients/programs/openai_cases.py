"""openai-python: chat, completions, embeddings, models. A field off its type raises."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Literal

from openai import (
    AsyncOpenAI,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    OpenAI,
    pydantic_function_tool,
)
from pydantic import BaseModel

if TYPE_CHECKING:
    from tests.clients.programs.run import Target

_COUNT: Any = [{"role": "user", "content": "Count from 1 to 5."}]
_SUM: Any = [{"role": "user", "content": "What is 2 + 3?"}]
_SUM_AS_JSON: Any = [{"role": "user", "content": "What is 2 + 3? Answer in JSON."}]


class _Sum(BaseModel):
    """The form of an answer."""

    a: int
    b: int
    total: int


class _Add(BaseModel):
    """Add two numbers."""

    a: int
    b: int


_ADD: Any = pydantic_function_tool(_Add, name="add", description="Add two numbers.")


def chat(target: Target) -> None:
    answer = _client(target).chat.completions.create(
        model=target.model, messages=_SUM, temperature=0
    )
    assert answer.choices[0].message.content == "2 + 3 = 5"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == target.model
    assert answer.usage.total_tokens > 8


def chat_in_choices_with_logprobs(target: Target) -> None:
    answer = _client(target).chat.completions.create(
        model=target.model, messages=_SUM, n=2, seed=1, logprobs=True, top_logprobs=2
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    first = answer.choices[0]
    assert "".join(p.token for p in first.logprobs.content).startswith(first.message.content)


def chat_in_a_tier(target: Target) -> None:
    client = _client(target)
    tiers: dict[Literal["auto", "flex", "fast"], str]
    tiers = {"auto": "default", "flex": "flex", "fast": "priority"}
    for asked, used in tiers.items():
        answer = client.chat.completions.create(
            model=target.model, messages=_SUM, temperature=0, service_tier=asked
        )
        assert (answer.service_tier, answer.choices[0].message.content) == (used, "2 + 3 = 5")
        stream = client.chat.completions.create(
            model=target.model, messages=_SUM, service_tier=asked, stream=True
        )
        assert {chunk.service_tier for chunk in stream} == {used}
    error = target.error_of(
        BadRequestError,
        client.chat.completions.create,
        model=target.model,
        messages=_SUM,
        service_tier="gold",
    )
    assert error.param == "service_tier"


def chat_within_a_deadline(target: Target) -> None:
    client = _client(target)
    error = target.error_of(
        InternalServerError,
        client.chat.completions.create,
        model=target.model,
        messages=_COUNT,
        extra_body={"deadline_s": 0.001},
    )
    assert (error.code, error.param) == ("job_timeout", "deadline_s")
    assert error.response.headers["x-should-retry"] == "false"


def chat_stream(target: Target) -> None:
    stream = _client(target).chat.completions.create(
        model=target.model,
        messages=_COUNT,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == "1, 2, 3, 4, 5"
    assert chunks[-1].usage.completion_tokens > 0


def chat_stream_helper(target: Target) -> None:
    with _client(target).chat.completions.stream(
        model=target.model, messages=_COUNT, temperature=0
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(deltas) == final.choices[0].message.content == "1, 2, 3, 4, 5"


def chat_asynchronous(target: Target) -> None:
    async def ask(client: AsyncOpenAI) -> str:
        stream = await client.chat.completions.create(
            model=target.model, messages=_COUNT, temperature=0, stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def ask_four() -> list[str]:
        async with AsyncOpenAI(**_options(target)) as client:
            return await asyncio.gather(*(ask(client) for _ in range(4)))

    assert asyncio.run(ask_four()) == ["1, 2, 3, 4, 5"] * 4


def structured_output(target: Target) -> None:
    answer = _client(target).chat.completions.parse(
        model=target.model, messages=_SUM_AS_JSON, temperature=0, response_format=_Sum
    )
    assert answer.choices[0].message.parsed == _Sum(a=2, b=3, total=5)


def structured_output_stream(target: Target) -> None:
    with _client(target).chat.completions.stream(
        model=target.model, messages=_SUM_AS_JSON, temperature=0, response_format=_Sum
    ) as stream:
        partial = [event.parsed for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert partial
    assert final.choices[0].message.parsed == _Sum(a=2, b=3, total=5)


def tools(target: Target) -> None:
    client = _client(target)
    asked = {"model": target.model, "tools": [_ADD], "temperature": 0}
    first: Any = client.chat.completions.create(messages=_SUM, **asked)  # type: ignore[call-overload]
    assert first.choices[0].finish_reason == "tool_calls"
    message = first.choices[0].message
    assert not message.content
    [call] = message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert (call.function.name, arguments) == ("add", {"a": 2, "b": 3})
    result = {"role": "tool", "tool_call_id": call.id, "content": "5"}
    history = [*_SUM, message.model_dump(exclude_none=True), result]
    last = client.chat.completions.create(messages=history, **asked)  # type: ignore[call-overload]
    assert last.choices[0].message.content == "2 + 3 = 5"


def tools_stream(target: Target) -> None:
    with _client(target).chat.completions.stream(
        model=target.model, messages=_SUM, temperature=0, tools=[_ADD]
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds
    assert "tool_calls.function.arguments.done" in kinds
    [call] = final.choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == _Add(a=2, b=3)
    assert final.choices[0].finish_reason == "tool_calls"


def tools_forced(target: Target) -> None:
    create: Any = _client(target).chat.completions.create
    named = {"type": "function", "function": {"name": "add"}}
    for choice in ("required", named):
        answer = create(
            model=target.model,
            messages=[{"role": "user", "content": "Hello!"}],
            temperature=0,
            tools=[_ADD],
            tool_choice=choice,
        )
        [call] = answer.choices[0].message.tool_calls
        assert call.function.name == "add"
        _Add.model_validate_json(call.function.arguments)
    answer = create(
        model=target.model, messages=_SUM, temperature=0, tools=[_ADD], tool_choice="none"
    )
    assert answer.choices[0].message.tool_calls is None


def completions(target: Target) -> None:
    client = _client(target)
    asked: Any = {"model": target.model, "prompt": "1, 2, 3,", "max_tokens": 8, "temperature": 0}
    whole = client.completions.create(**asked, logprobs=1)
    assert whole.choices[0].text
    assert "".join(whole.choices[0].logprobs.tokens).startswith(whole.choices[0].text)
    # OpenAI itself sends a null finish_reason here, which the client's type does not know.
    streamed = _client(target, is_strict=False).completions.create(**asked, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == whole.choices[0].text


def embeddings(target: Target) -> None:
    client = _client(target)
    texts = ["Hello!", "What is 2 + 3?"]
    # By default the client asks for base64, which it decodes after the check of its types.
    packed = _client(target, is_strict=False).embeddings.create(model=target.model, input=texts)
    plain = client.embeddings.create(model=target.model, input=texts, encoding_format="float")
    assert [e.index for e in packed.data] == [0, 1]
    assert packed.data[1].embedding == plain.data[1].embedding
    assert len(packed.data[0].embedding) > 8
    by_tokens = client.embeddings.create(
        model=target.model, input=[[1, 2, 3], [4]], encoding_format="float"
    )
    assert len(by_tokens.data) == 2


def models(target: Target) -> None:
    client = _client(target)
    assert target.model in [model.id for model in client.models.list()]
    assert client.models.retrieve(target.model).id == target.model


def errors(target: Target) -> None:
    client = _client(target)
    wrong: Any = {"model": target.model, "messages": _SUM, "temperature": 3}
    error = target.error_of(BadRequestError, client.chat.completions.create, **wrong)
    assert error.param == "temperature"
    unknown = target.error_of(NotFoundError, client.models.retrieve, model="no-such-model")
    assert unknown.code == "model_not_found"


def _options(target: Target, *, is_strict: bool = True) -> Any:
    return {
        "base_url": target.openai_url,
        "api_key": "none",
        "max_retries": 0,
        "timeout": 60,
        "_strict_response_validation": is_strict,
    }


def _client(target: Target, *, is_strict: bool = True) -> OpenAI:
    return OpenAI(**_options(target, is_strict=is_strict))
