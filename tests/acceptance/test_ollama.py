"""ollama's API of real models, through its official client, and with other programs' bodies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import ollama
import pytest
from ollama import Client

from tests.helpers.editors import Sent
from tests.helpers.ollama_bodies import ALL
from tests.helpers.server import Server

pytestmark = pytest.mark.timeout(180)

MODELS = ["demo", "demo.gguf"]
GREEDY: Any = {"temperature": 0, "num_ctx": 4096}
HELLO: Any = [{"role": "user", "content": "Hello!"}]
SUM = {
    "type": "object",
    "properties": {name: {"type": "integer"} for name in ("a", "b", "total")},
    "required": ["a", "b", "total"],
    "additionalProperties": False,
}


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
      a: the first
      b: the second
    """
    return a + b


@pytest.fixture(scope="module")
def server(_session_server: Server) -> Iterator[Server]:
    """A server on which every name of the tests is loaded."""
    for model_id, name in enumerate((*MODELS, "fake")):
        _session_server.load(name, str(model_id))
    yield _session_server
    _session_server.unload_all()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with Client(server.url, timeout=60) as found:
        yield found


def chat_text(server: Server, model: str, text: str) -> str:
    answer = server.chat(text, str(MODELS.index(model))).json()
    return str(answer["choices"][0]["message"]["content"])


@pytest.mark.parametrize("model", MODELS)
def test_a_chat_says_what_openais_says_whole_and_streamed(
    server: Server, client: Client, model: str
) -> None:
    expected = chat_text(server, model, "Hello!")
    whole = client.chat(model, HELLO, options=GREEDY)
    assert (whole.message.content, whole.model, whole.done_reason) == (expected, model, "stop")
    parts = list(client.chat(model, HELLO, options=GREEDY, stream=True, keep_alive="5m"))
    assert "".join(part.message.content or "" for part in parts) == expected
    assert [part.done for part in parts[:-1]] == [False] * (len(parts) - 1)
    for last in (whole, parts[-1]):
        assert (last.prompt_eval_count, last.eval_count) == (13, 14)
        durations = (last.load_duration, last.prompt_eval_duration, last.eval_duration)
        assert all(durations)
        assert sum(durations) == pytest.approx(last.total_duration, rel=0.2)
    text = client.generate(model, "Hello!", options=GREEDY)
    assert (text.response, text.eval_count) == (expected, 14)


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", MODELS)
def test_a_tool_is_called_and_its_result_read(
    server: Server, client: Client, model: str, is_streamed: bool
) -> None:
    asked: Any = [{"role": "user", "content": "What is 2 + 3?"}]
    fields: Any = {"tools": [add], "options": GREEDY}
    if is_streamed:
        parts = client.chat(model, asked, stream=True, **fields)
        calls = [call for part in parts for call in part.message.tool_calls or ()]
    else:
        calls = list(client.chat(model, asked, **fields).message.tool_calls or ())
    [call] = calls
    assert (call.function.name, call.function.arguments) == ("add", {"a": 2, "b": 3})
    answered: Any = [
        *asked,
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_name": "add", "content": str(add(**call.function.arguments))},
    ]
    assert client.chat(model, answered, **fields).message.content == "2 + 3 = 5"


@pytest.mark.parametrize("model", MODELS)
def test_a_format_holds_and_a_raw_prompt_is_not_a_chat(
    server: Server, client: Client, model: str
) -> None:
    asked: Any = [{"role": "user", "content": "What is 2 + 3?"}]
    answer = client.chat(model, asked, format=SUM, options=GREEDY)
    assert json.loads(answer.message.content) == {"a": 2, "b": 3, "total": 5}
    assert isinstance(json.loads(client.generate(model, "x", format="json").response), dict)
    raw = client.generate(model, "Hello", raw=True, options={**GREEDY, "num_predict": 3})
    assert (raw.done_reason, raw.prompt_eval_count, raw.eval_count) == ("length", 1, 3)
    rest = client.chat(model, [*HELLO, {"role": "assistant", "content": "Hello! "}], options=GREEDY)
    assert "Hello! " + rest.message.content == chat_text(server, model, "Hello!")


@pytest.mark.parametrize("model", MODELS)
def test_vectors_are_openais_and_too_long_texts_are_cut(
    server: Server, client: Client, model: str
) -> None:
    body = {"input": ["a", "b"]}
    data = server.post("/v1/embeddings", body, str(MODELS.index(model))).json()["data"]
    found = client.embed(model, ["a", "b"])
    for vector, entry in zip(found.embeddings, data, strict=True):
        assert vector == pytest.approx(entry["embedding"], abs=1e-6)
    assert client.embeddings(model, "a").embedding == pytest.approx(found.embeddings[0], abs=1e-6)
    long = "long " * 5000
    assert len(client.embed(model, long).embeddings[0]) == len(found.embeddings[0])
    with pytest.raises(ollama.ResponseError, match="too long"):
        client.embed(model, long, truncate=False)


def test_models_are_listed_shown_loaded_and_unloaded(server: Server, client: Client) -> None:
    name = "gemma-2b.gguf"
    server.load(name, "9")
    listed = {model.model: model for model in client.list().models}
    assert {*MODELS, name, "gemma-2b"} <= set(listed)
    running = {model.model: model for model in client.ps().models}
    assert set(running) == {*MODELS, name, "fake"}
    shown = client.show(name)
    assert shown.details == running[name].details == listed[name].details
    assert (shown.details.format, shown.details.family) == ("gguf", "qwen3")
    assert {"completion", "tools"} <= set(shown.capabilities)
    assert shown.modelinfo["qwen3.context_length"] == running[name].context_length
    assert "tools" in shown.template
    assert client.show("gemma-2b").details.family == "qwen3"  # which is not loaded
    assert client.generate(name).done_reason == "load"
    assert client.generate(name, keep_alive=0).done_reason == "unload"
    assert name not in {model.model for model in client.ps().models}


def test_errors_are_the_clients(server: Server, client: Client) -> None:
    with pytest.raises(ollama.ResponseError, match="model not found") as caught:
        client.chat("nobody", HELLO)
    assert caught.value.status_code == 404
    long: Any = [{"role": "user", "content": "long " * 5000}]
    with pytest.raises(ollama.ResponseError, match="context holds") as caught:
        list(client.chat("demo", long, stream=True))
    assert caught.value.status_code == 400
    image: Any = [{"role": "user", "content": "a", "images": [b"png"]}]
    with pytest.raises(ollama.ResponseError, match="only texts are read"):
        client.chat("demo", image)


@pytest.mark.parametrize("sent", ALL, ids=[sent.program for sent in ALL])
def test_what_a_program_sends_by_default_is_answered(server: Server, sent: Sent) -> None:
    answer = httpx.post(f"{server.url}{sent.path}", json=sent.body, timeout=60)
    assert answer.status_code == 200, answer.text
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert not [line for line in lines if "error" in line], answer.text
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    messages = [line.get("message") or {"content": line["response"]} for line in lines]
    said = [m["content"] or m.get("tool_calls") for m in messages]
    assert any(said) == (lines[-1]["done_reason"] != "load"), answer.text
