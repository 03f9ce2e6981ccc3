"""Structured output over HTTP, on all engines, also when the worker is killed in the middle."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

import httpx
import pytest
from openai import BadRequestError
from pydantic import BaseModel

from tests.helpers.sdk import openai_client
from tests.helpers.server import Server

pytestmark = pytest.mark.timeout(180)

MODELS = ["demo", "demo.gguf", "fake"]


class Person(BaseModel):
    """What the schema asks for."""

    name: str
    age: int


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 10},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
CHAT: dict[str, Any] = {
    "model": "dummy", "messages": [{"role": "user", "content": "Who are you?"}],
    "max_tokens": 200, "temperature": 0.8, "seed": 3,
}  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_each_way_of_asking_is_honoured(server: Server, model: str) -> None:
    server.load(model)
    create: Any = openai_client(server.url).chat.completions.create
    for stream in (False, True):
        text = said(create(**CHAT, response_format=FORMAT, stream=stream))
        assert 0 <= Person.model_validate_json(text).age <= 130
        text = said(create(**CHAT, stream=stream, extra_body={"regex": "[a-f]{5}[0-9]"}))
        assert re.fullmatch("[a-f]{5}[0-9]", text)
        text = said(create(**CHAT, stream=stream, extra_body={"choice": ["yes", "no, never"]}))
        assert text in ("yes", "no, never")
        text = said(create(**CHAT, stream=stream, extra_body={"grammar": 'root ::= "a" "b"+ "."'}))
        assert text.startswith("ab")


def said(answer: Any) -> str:
    """The text of an answer, whole or streamed."""
    if hasattr(answer, "choices"):
        return str(answer.choices[0].message.content)
    return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)


def test_pydantic_models_are_parsed_by_the_official_client(server: Server) -> None:
    server.load("demo.gguf")
    parse = openai_client(server.url).chat.completions.parse
    for seed in range(5):
        answer = parse(**{**CHAT, "seed": seed}, response_format=Person)
        if answer.choices[0].finish_reason == "stop":
            assert isinstance(answer.choices[0].message.parsed, Person)


def test_a_json_object_is_one(server: Server) -> None:
    server.load("demo")
    create: Any = openai_client(server.url).chat.completions.create
    answer = create(**{**CHAT, "temperature": 0}, response_format={"type": "json_object"})
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


@pytest.mark.parametrize(
    ("extra", "param", "said"),
    [
        ({"regex": "(a"}, "regex", "regex"),
        ({"grammar": "start: missing"}, "grammar", "missing"),
        ({"grammar": "root ::= missing"}, "grammar", "grammar"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}},
            "response_format",
            "not",
        ),
    ],
)
def test_what_cannot_be_honoured_is_a_400_that_names_it(
    server: Server, extra: dict[str, Any], param: str, said: str
) -> None:
    server.load("fake")
    create: Any = openai_client(server.url).chat.completions.create
    for stream in (False, True):
        with pytest.raises(BadRequestError) as caught:
            create(**CHAT, stream=stream, extra_body=extra)
        assert caught.value.param == param
        assert said in caught.value.message


@pytest.mark.parametrize("model", ["demo", "demo.gguf"])
def test_a_grammar_survives_the_death_of_its_worker(own_server: Server, model: str) -> None:
    own_server.load(model)
    chat = {"messages": [{"role": "user", "content": "Count from 1 to 100."}], "temperature": 0}
    body = {**chat, "regex": "([0-9]{1,3}, ){40}[0-9]{1,3} and so on", "stream": True}
    undisturbed = httpx.post(
        f"{own_server.url}/v1/chat/completions", json={**body, "stream": False}, timeout=120
    ).json()["choices"][0]["message"]["content"]
    assert undisturbed.endswith(" and so on")
    text = ""
    with httpx.stream(
        "POST", f"{own_server.url}/v1/chat/completions", json=body, timeout=120
    ) as got:
        for line in got.iter_lines():
            if not line.startswith("data: {"):
                continue
            delta = json.loads(line[6:])["choices"][0]["delta"]
            if not text and delta.get("content"):
                os.kill(own_server.processes_by_id()["0"]["process_id"], signal.SIGKILL)
            text += delta.get("content") or ""
    assert text == undisturbed
