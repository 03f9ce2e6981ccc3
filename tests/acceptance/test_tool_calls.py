"""Calls of tools over HTTP, on both engines: read, streamed, forced, cut anywhere, resumed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from typing import Any

import httpx
import pydantic_core
import pytest
from openai import AsyncOpenAI

from tests.helpers.sdk import openai_client
from tests.helpers.server import Server
from tests.helpers.thinking import add_thinking_model

pytestmark = pytest.mark.timeout(300)

MODELS = ["demo", "demo.gguf"]
ADD: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
NUM_CALLS = int(os.environ.get("NUM_CALLS", "50"))
MARKUP = ("<tool_call", "</tool_call", "<|im_")


def ask(server: Server, question: str, **fields: Any) -> Any:
    create: Any = openai_client(server.url).chat.completions.create
    messages = fields.pop("messages", [{"role": "user", "content": question}])
    body = {"model": "dummy", "temperature": 0, "tools": [ADD, WEATHER], **fields}
    return create(messages=messages, **body)


@pytest.mark.parametrize("model", MODELS)
def test_a_loop_of_calls_and_results_comes_to_an_answer(server: Server, model: str) -> None:
    server.load(model)
    question = {"role": "user", "content": "What is 3 plus 4?"}
    answer = ask(server, "", messages=[question]).choices[0]
    assert (answer.finish_reason, answer.message.content) == ("tool_calls", None)
    (call,) = answer.message.tool_calls
    assert (call.type, call.function.name) == ("function", "add")
    assert json.loads(call.function.arguments) == {"a": 3, "b": 4}
    result = {"role": "tool", "tool_call_id": call.id, "content": "7"}
    messages = [question, answer.message.model_dump(exclude_none=True), result]
    final = ask(server, "", messages=messages).choices[0]
    assert final.finish_reason == "stop"
    assert "7" in final.message.content


@pytest.mark.parametrize("model", MODELS)
def test_a_streamed_call_is_the_same_call(server: Server, model: str) -> None:
    server.load(model)
    chunks = list(ask(server, "How is the weather in Paris?", stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    first, *more = [call for delta in deltas for call in delta.tool_calls or ()]
    assert (first.index, first.type, first.function.name) == (0, "function", "get_weather")
    assert first.id.startswith("call_")
    assert {(c.index, c.id, c.type, c.function.name) for c in more} <= {(0, None, None, None)}
    written = "".join(c.function.arguments for c in (first, *more))
    assert json.loads(written) == {"city": "Paris"}
    assert "".join(delta.content or "" for delta in deltas) == ""
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("model", MODELS)
def test_a_choice_of_tools_is_followed(server: Server, model: str) -> None:
    server.load(model)
    forced = {"type": "function", "function": {"name": "get_weather"}}
    for choice, names in (("required", {"add", "get_weather"}), (forced, {"get_weather"})):
        answer = ask(
            server, "Hello!", tool_choice=choice, parallel_tool_calls=False, max_tokens=200
        ).choices[0]
        (call,) = answer.message.tool_calls
        assert call.function.name in names
        assert isinstance(json.loads(call.function.arguments), dict)
        assert answer.finish_reason == "tool_calls"
    plain = ask(server, "Hello!", tool_choice="none").choices[0]
    assert (plain.message.tool_calls, plain.finish_reason) == (None, "stop")
    assert ask(server, "Hello!").choices[0].message.content == plain.message.content


@pytest.mark.parametrize("model", MODELS)
def test_arguments_parse_and_no_markup_leaks_wherever_a_call_is_cut(
    server: Server, model: str
) -> None:
    """Many calls at once, streamed and not, of any length that a client may allow."""
    server.load(model)
    rng = random.Random(7)
    limits = [None, *range(1, 41)]
    asked = [(rng.randint(0, 99), rng.randint(0, 99), rng.choice(limits)) for _ in range(NUM_CALLS)]
    answers = asyncio.run(answer_all(server, asked))
    for content, calls, finish_reason in answers:
        assert not any(mark in content for mark in MARKUP), content
        for name, arguments in calls:
            assert name in ("add", "get_weather")
            assert finish_reason == "length" or isinstance(json.loads(arguments), dict)
            pydantic_core.from_json(arguments or "{}", allow_partial=True)
        assert finish_reason in (("tool_calls", "length") if calls else ("stop", "length"))
    for unstreamed, streamed in zip(answers[::2], answers[1::2], strict=True):
        assert unstreamed == streamed
    assert sum(len(calls) for _, calls, _ in answers) > len(answers) / 4


async def answer_all(server: Server, asked: list[tuple[int, int, int | None]]) -> list[Any]:
    """Each sum asked for twice, whole and streamed, sixteen at once."""
    limit = asyncio.Semaphore(16)
    url = f"{server.url}/v1"
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        create: Any = client.chat.completions.create

        async def one(a: int, b: int, max_tokens: int | None, stream: bool) -> Any:
            messages = [{"role": "user", "content": f"What is {a} plus {b}?"}]
            body = {"model": "dummy", "messages": messages, "tools": [ADD, WEATHER]}
            extra = {"temperature": 1.0, "seed": a * 100 + b, "max_tokens": max_tokens}
            async with limit:
                answer = await create(**body, **extra, stream=stream)
                return await collected(answer) if stream else whole(answer)

        return await asyncio.gather(
            *(one(*values, stream) for values in asked for stream in (False, True))
        )


Answer = tuple[str, list[tuple[str, str]], str]


def whole(answer: Any) -> Answer:
    choice = answer.choices[0]
    calls = [(c.function.name, c.function.arguments) for c in choice.message.tool_calls or ()]
    return choice.message.content or "", calls, choice.finish_reason


async def collected(stream: Any) -> Answer:
    content, finish_reason = "", ""
    calls: list[tuple[str, str]] = []
    async for chunk in stream:
        choice = chunk.choices[0]
        content += choice.delta.content or ""
        for call in choice.delta.tool_calls or ():
            name, arguments = calls.pop() if call.index < len(calls) else (call.function.name, "")
            calls.append((name, arguments + call.function.arguments))
        finish_reason = choice.finish_reason or finish_reason
    return content, calls, finish_reason


@pytest.mark.parametrize("model", MODELS)
def test_a_call_survives_the_death_of_its_worker(own_server: Server, model: str) -> None:
    own_server.load(model)
    note = 'a </tool_call> b, "quoted" and\nlong enough to be cut; ' * 20
    parameters = {
        "type": "object",
        "properties": {"note": {"const": note}},
        "required": ["note"],
        "additionalProperties": False,
    }
    write = {"type": "function", "function": {"name": "write", "parameters": parameters}}
    body = {
        "messages": [{"role": "user", "content": "Hello!"}],
        "tools": [write],
        "tool_choice": {"type": "function", "function": {"name": "write"}},
        "temperature": 0,
        "stream": True,
    }
    undisturbed = streamed_call(own_server, body, kill_after=None)
    text, [(name, arguments)], num_deltas = undisturbed
    assert (text, name, json.loads(arguments)) == ("", "write", {"note": note})
    assert num_deltas > 8
    for kill_after in (2, 6):
        killed = streamed_call(own_server, body, kill_after)
        assert killed[:2] == (text, [(name, arguments)])


def streamed_call(server: Server, body: Any, kill_after: int | None) -> Any:
    """(text, calls, number of their deltas) of a stream whose worker dies after some frames."""
    calls: list[tuple[str, str]] = []
    text, num_deltas, num_frames = "", 0, 0
    url = f"{server.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, timeout=120) as got:
        for line in got.iter_lines():
            if not line.startswith("data: {"):
                continue
            num_frames += 1
            if num_frames == kill_after:
                os.kill(server.processes_by_id()["0"]["process_id"], signal.SIGKILL)
            delta = json.loads(line[6:])["choices"][0]["delta"]
            text += delta.get("content") or ""
            for call in delta.get("tool_calls") or ():
                num_deltas += 1
                function = call["function"]
                assert ("id" in call) == ("name" in function) == (call["index"] == len(calls))
                name, arguments = calls.pop() if "id" not in call else (function["name"], "")
                calls.append((name, arguments + function["arguments"]))
    return text, calls, num_deltas


def test_thoughts_are_split_off_and_have_a_budget(server: Server) -> None:
    add_thinking_model(server.folder / "models" / "thinker")
    server.load("thinker")
    create: Any = openai_client(server.url).chat.completions.create
    messages = [{"role": "user", "content": "Hello!"}]
    body = {"model": "dummy", "messages": messages, "temperature": 0, "max_tokens": 40}
    extra = {"thinking_budget": 5}
    answer = create(**body, extra_body=extra)
    message = answer.choices[0].message
    assert message.reasoning_content
    assert message.reasoning_content == message.reasoning
    assert "think" not in message.content + message.reasoning_content
    # The marker takes tokens of its own, which are thoughts too.
    assert 5 < answer.usage.completion_tokens_details.reasoning_tokens < 20
    chunks = list(create(**body, extra_body=extra, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    thoughts = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert thoughts == message.reasoning_content
    assert "".join(delta.content or "" for delta in deltas) == message.content
    off = create(**body, extra_body={"enable_thinking": False}).choices[0].message
    assert not hasattr(off, "reasoning_content")
