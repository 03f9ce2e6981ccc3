"""Chats with tools over HTTP, streamed and whole; random ones, and what their answers must be."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import httpx
import jsonschema_rs
import pydantic_core

from tests.helpers.random_schemas import SchemaMaker
from tests.world.talkers import Talker
from tests.world.tokenizers.kinds import END

Json = dict[str, Any]
_ROUTE = "/v1/chat/completions"
_STOPS = ["e", "th", "\n", ":", '"']
_LONGEST = 1500  # tokens; forced calls end before
_ENDS = ("cancelled", "finished")


class Way(StrEnum):
    """How an answer is asked for. ``GONE``: the client leaves in the middle."""

    WHOLE = "whole"
    STREAMED = "streamed"
    GONE = "client gone"


@dataclass(frozen=True, slots=True)
class Chat:
    """``is_forced``: a call has to come, so all of the answer is judged."""

    body: Json
    way: Way
    is_forced: bool
    is_cut: bool
    num_read: int
    """Frames that a client reads before it leaves."""


@dataclass(slots=True)
class Answer:
    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    """Name and arguments."""
    finish_reason: str | None = None
    loosened: frozenset[str] = frozenset()
    token_ids: list[int] = field(default_factory=list, compare=False)
    """What the model said, for judges that ask for it."""


Judge = Callable[[Chat, Answer], list[str]]


def make_chat(rng: random.Random, talker: Talker) -> Chat:
    way = rng.choices(list(Way), (4, 5, 1))[0]
    tools = [_tool(rng, n) for n in range(rng.randint(1, 3))]
    choice: Any = rng.choices(["required", "auto", _named(rng.choice(tools))], (4, 4, 2))[0]
    is_forced = choice != "auto"
    is_cut = rng.random() < 0.35
    body: Json = {
        "messages": [{"role": "user", "content": "Look it up."}],
        "tools": tools,
        "tool_choice": choice,
        "temperature": 1,
        "seed": rng.getrandbits(31),
        "parallel_tool_calls": rng.random() < 0.5,
        "max_tokens": rng.randint(1, 60) if is_cut else _LONGEST if is_forced else 150,
        "thinking_budget": rng.randint(1, 12),
        "stream": way is not Way.WHOLE,
    }
    if rng.random() < 0.3:
        body["stop"] = rng.sample(_STOPS, 2)
    if not is_forced:
        body["logit_bias"] = _likelier(rng, talker)
    return Chat(body, way, is_forced, is_cut, rng.randint(1, 30))


def _tool(rng: random.Random, number: int) -> Json:
    schema = SchemaMaker(rng.getrandbits(31)).schema()
    schema.pop("not", None)  # nothing fits
    return {"type": "function", "function": {"name": f"look_{number}", "parameters": schema}}


def _named(tool: Json) -> Json:
    return {"type": "function", "function": {"name": tool["function"]["name"]}}


def _likelier(rng: random.Random, talker: Talker) -> dict[str, float]:
    """Markers come often, in any order, and some answers end."""
    tokenizer = talker.tokenizer
    ids = (tokenizer.token_to_id(text) for text in talker.markup)
    bias = {str(one): rng.uniform(0, 5) for one in ids if one is not None}
    return {**bias, str(tokenizer.token_to_id(END)): 1.0}


async def ask(
    client: httpx.AsyncClient, chat: Chat, judge: Judge, *, has_token_ids: bool = False
) -> list[str]:
    """What is wrong with the answer, if anything is; one without an end was left by its client."""
    async with client.stream("POST", _ROUTE, json=chat.body) as response:
        if response.status_code != 200:
            return [f"status {response.status_code}: {(await response.aread()).decode()}"]
        if chat.way is Way.WHOLE:
            answer = _whole(json.loads(await response.aread()))
        else:
            answer = await _collected(response, chat)
        answer.loosened = _loosened(response)
    if has_token_ids:
        answer.token_ids = await _token_ids(client, response.headers["x-job-id"])
    found = judge(chat, answer)
    if chat.way is Way.WHOLE:
        return found
    job = await _ended(client, response.headers["x-job-id"])
    if chat.way is Way.GONE and answer.finish_reason is None:
        is_over = job["status"] in _ENDS
        return found + ([] if is_over else [f"alone, it is {job['status']}"])
    whole = _whole(job["result"])
    whole.loosened = answer.loosened
    return found + ([f"streamed {answer}, whole {whole}"] if answer != whole else [])


async def _token_ids(client: httpx.AsyncClient, job: str) -> list[int]:
    """The tokens of a job, which this waits for."""
    events = (await client.get(f"/v1/jobs/{job}/events")).text
    lines = [line for line in events.splitlines() if line.startswith("data: {")]
    return [token for line in lines for token in json.loads(line[6:]).get("token_ids") or ()]


async def _ended(client: httpx.AsyncClient, job: str) -> Json:
    """The job, once it has ended."""
    for _ in range(200):
        found: Json = (await client.get(f"/v1/jobs/{job}")).json()
        if found["status"] in (*_ENDS, "failed"):
            break
        await asyncio.sleep(0.05)
    return found


def _loosened(response: httpx.Response) -> frozenset[str]:
    named = response.headers.get("x-schema-loosened", "")
    return frozenset(place.rpartition("/")[2] for place in named.split(", ")) - {""}


def _whole(body: Json) -> Answer:
    choice = body["choices"][0]
    message = choice["message"]
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    return Answer(
        message.get("content") or "",
        message.get("reasoning_content") or "",
        [(call["name"], call["arguments"]) for call in calls],
        choice["finish_reason"],
    )


async def _collected(stream: httpx.Response, chat: Chat) -> Answer:
    found = Answer()
    num_frames = 0
    async for line in stream.aiter_lines():
        if line.startswith("data: {"):
            _add(found, json.loads(line[6:])["choices"][0])
            num_frames += 1
        if chat.way is Way.GONE and num_frames == chat.num_read:
            break
    return found


def _add(found: Answer, choice: Json) -> None:
    delta = choice["delta"]
    found.content += delta.get("content") or ""
    found.reasoning += delta.get("reasoning_content") or ""
    for call in delta.get("tool_calls") or ():
        function = call["function"]
        is_new = call["index"] == len(found.calls)
        name, arguments = (function["name"], "") if is_new else found.calls.pop()
        found.calls.append((name, arguments + function["arguments"]))
    found.finish_reason = choice["finish_reason"]


def problems(talker: Talker, chat: Chat, answer: Answer) -> list[str]:
    """What a random chat's answer must not be, whatever the model says."""
    if answer.finish_reason is None:
        return _leaks(talker, answer)
    return [*_problems(chat, answer), *_leaks(talker, answer)]


def _problems(chat: Chat, answer: Answer) -> Iterator[str]:
    yield from _problems_of_calls(chat, answer)
    is_length = answer.finish_reason == "length"
    if chat.is_forced:
        if answer.content.strip():
            yield f"content beside a forced call: {answer.content!r}"
        if not is_length and not (answer.calls and answer.finish_reason == "tool_calls"):
            yield f"no call, but {answer.finish_reason}"
        if is_length and not chat.is_cut and not chat.body["parallel_tool_calls"]:
            yield f"no end: {answer.calls}"
        return
    expected = {"tool_calls" if answer.calls else "stop", "stop" if "stop" in chat.body else ""}
    if not is_length and answer.finish_reason not in expected:
        yield f"{answer.finish_reason} with {len(answer.calls)} calls"


def _problems_of_calls(chat: Chat, answer: Answer) -> Iterator[str]:
    """Of several, only the last may be cut."""
    schemas = {t["function"]["name"]: t["function"]["parameters"] for t in chat.body["tools"]}
    for number, (name, arguments) in enumerate(answer.calls):
        if name not in schemas:
            yield f"a call of {name!r}"
            continue
        is_last = number == len(answer.calls) - 1
        try:
            if is_last and answer.finish_reason == "length":
                pydantic_core.from_json(arguments or "{}", allow_partial=True)
            else:
                schema = _without(schemas[name], answer.loosened)
                validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
                validator.validate(json.loads(arguments))
        except ValueError as error:
            yield f"{arguments} against {json.dumps(schemas[name])}: {error}"


def _without(schema: Any, keywords: frozenset[str]) -> Any:
    """The schema without what the answer said it could not hold."""
    if isinstance(schema, list):
        return [_without(one, keywords) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _without(one, keywords) for key, one in schema.items() if key not in keywords}


def _leaks(talker: Talker, answer: Answer) -> list[str]:
    shown = answer.content + answer.reasoning
    found = [text for text in talker.hidden if text in shown]
    found += [text for text in talker.starts if text in answer.content]
    return [f"{text} is shown in {answer}" for text in found]
