"""Markup inside texts, arguments by their schemas, and loosened schemas, over HTTP."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.helpers.server import ROOT, Server, make_server
from tests.helpers.thinking import add_thinking_model

pytestmark = pytest.mark.timeout(300)

MODELS = ["demo", "demo.gguf"]
HELLO = [{"role": "user", "content": "Hello!"}]
CODER = "{# <tool_call> <function= #}"


def post(server: Server, path: str = "/v1/chat/completions", **body: Any) -> httpx.Response:
    body = {"messages": HELLO, "temperature": 0, "max_tokens": 120, **body}
    return httpx.post(f"{server.url}{path}", json=body, timeout=120)


def choice_of(server: Server, **body: Any) -> Any:
    answer = post(server, **body)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


def tool(name: str = "f", **properties: Any) -> Any:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def schema_format(schema: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def constant(text: str) -> Any:
    return tool(note={"const": text}, ok={"const": True})["function"]["parameters"]


def add_coder_model(server: Server) -> None:
    """The demo model, with calls as Qwen3-Coder writes them."""
    folder = server.folder / "models" / "coder"
    add_thinking_model(folder)
    source = folder / "tokenizer_config.json"
    plain = json.loads((ROOT / "models" / "demo" / "tokenizer_config.json").read_text())
    source.write_text(json.dumps({**plain, "chat_template": CODER + plain["chat_template"]}))


@pytest.mark.parametrize("model", [*MODELS, "thinker"])
@pytest.mark.parametrize("text", ["a <think> b", "a <tool_call> b", "a </tool_call> b"])
def test_markers_inside_a_text_that_a_grammar_holds_are_text(
    server: Server, model: str, text: str
) -> None:
    if model == "thinker":
        add_thinking_model(server.folder / "models" / "thinker")
    server.load(model)
    form = schema_format(constant(text))
    for more in ({}, {"tools": [tool(x={"type": "integer"})]}):
        choice = choice_of(server, response_format=form, enable_thinking=False, **more)
        assert json.loads(choice["message"]["content"]) == {"note": text, "ok": True}
        assert "reasoning_content" not in choice["message"]


@pytest.mark.parametrize("model", [*MODELS, "coder"])
@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"const": "a </tool_call> b"}, "a </tool_call> b"),
        ({"type": "integer", "enum": [1234567890123456789]}, 1234567890123456789),
        ({"anyOf": [{"type": "integer", "minimum": 3, "maximum": 3}]}, 3),
        ({"enum": ["null"]}, "null"),
        ({"anyOf": [{"type": "string", "enum": ["abc"]}]}, "abc"),
    ],
)
def test_arguments_are_what_their_schema_says(
    server: Server, model: str, schema: Any, value: Any
) -> None:
    if model == "coder":
        add_coder_model(server)
    server.load(model)
    for stream in (False, True):
        body = {"tools": [tool(x=schema)], "tool_choice": "required", "parallel_tool_calls": False}
        if stream:
            arguments = "".join(streamed(server, **body))
        else:
            choice = choice_of(server, **body)
            assert choice["finish_reason"] == "tool_calls"
            arguments = choice["message"]["tool_calls"][0]["function"]["arguments"]
        assert json.loads(arguments) == {"x": value}


def streamed(server: Server, **body: Any) -> list[str]:
    """The pieces of a call's arguments."""
    found: list[str] = []
    for line in post(server, stream=True, **body).text.splitlines():
        if line.startswith("data: {"):
            for call in json.loads(line[6:])["choices"][0]["delta"].get("tool_calls") or ():
                found.append(call["function"]["arguments"])
    return found


def argument_pieces(server: Server, path: str, schema: Any) -> list[str]:
    """The pieces of a forced call's arguments, as this route streams them."""
    named: Any = {"name": "f", "parameters": schema}
    body: Any = {"tools": [{"type": "function", **named}], "tool_choice": "required"}
    body.update(parallel_tool_calls=False)
    if path == "/v1/responses":
        body.update(input="Hello!")
    elif path == "/v1/messages":
        named = {"name": "f", "input_schema": schema}
        body.update(tools=[named], tool_choice={"type": "any", "disable_parallel_tool_use": True})
    else:
        body.update(tools=[{"type": "function", "function": named}])
    text = post(server, path, stream=True, **{**body, "max_tokens": 1000}).text
    lines = [line for line in text.splitlines() if line.startswith("data: {")]
    return [piece for line in lines for piece in pieces_of(json.loads(line[6:]))]


def pieces_of(event: Any) -> list[str]:
    if event.get("type") == "response.function_call_arguments.delta":
        return [event["delta"]]
    if event.get("type") == "content_block_delta":
        return [event["delta"]["partial_json"]]
    deltas = [choice["delta"] for choice in event.get("choices") or ()]
    calls = [call for delta in deltas for call in delta.get("tool_calls") or ()]
    return [call["function"]["arguments"] for call in calls]


@pytest.mark.parametrize(
    ("path", "model"),
    [
        *(("/v1/chat/completions", model) for model in MODELS),
        ("/v1/responses", "demo.gguf"),
        ("/v1/messages", "demo.gguf"),
    ],
)
def test_arguments_come_while_they_are_written(server: Server, path: str, model: str) -> None:
    server.load(model)
    letter = " ".join(f"Line {n} of a long letter." for n in range(20))
    schema = tool(text={"const": letter})["function"]["parameters"]
    pieces = argument_pieces(server, path, schema)
    assert json.loads("".join(pieces)) == {"text": letter}
    assert sum(map(bool, pieces)) >= 5


@pytest.mark.parametrize("model", MODELS)
def test_a_call_that_a_limit_cuts_stays_a_call(server: Server, model: str) -> None:
    server.load(model)
    body = {"tools": [tool(x={"const": "a long text that is cut"})], "tool_choice": "required"}
    choice = choice_of(server, max_tokens=14, **body)
    assert (choice["finish_reason"], choice["message"]["content"]) == ("length", None)
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "f"
    assert '{"x": "a long text that is cut"}'.replace(" ", "").startswith(
        call["function"]["arguments"].replace(" ", "").replace("\n", "")
    )


def test_what_no_grammar_can_hold_is_left_out_and_named(server: Server) -> None:
    server.load("demo.gguf")
    odd = {"type": "array", "items": {"const": 1}, "maxItems": 2, "uniqueItems": True}
    answer = post(server, response_format=schema_format({"anyOf": [odd]}), max_tokens=30)
    assert answer.headers["x-schema-loosened"] == "response_format#/anyOf/0/uniqueItems"
    assert isinstance(answer.json()["choices"][0]["message"]["content"], str)
    record = {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {}}
    tools = [tool("now"), tool("odd", x=record)]
    with httpx.stream(
        "POST",
        f"{server.url}/v1/chat/completions",
        json={"messages": HELLO, "tools": tools, "stream": True, "max_tokens": 9},
        timeout=60,
    ) as stream:
        named = stream.headers["x-schema-loosened"]
        assert named == "tools[1].function.parameters#/properties/x/propertyNames"
    assert "x-schema-loosened" not in post(server, tools=[tool("now")]).headers


def test_a_server_may_refuse_what_would_be_loosened() -> None:
    server = make_server(MGS_STRICT_SCHEMAS="true")
    try:
        server.start_all()
        server.load("demo.gguf")
        refused = post(server, response_format=schema_format({"type": "array", "contains": {}}))
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "response_format"
        odd = tool(x={"type": "array", "uniqueItems": True})
        refused = post(server, tools=[tool("now"), odd])
        assert refused.json()["error"]["param"] == "tools[1].function.parameters"
        assert "uniqueItems" in refused.json()["error"]["message"]
    finally:
        server.stop()
