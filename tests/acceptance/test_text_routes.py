"""Tokens, templates, order of documents, gaps and begun answers over HTTP, on every engine."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.server import Server

pytestmark = pytest.mark.timeout(180)
MODELS = ("demo", "demo.gguf", "fake")
TEXT = "Hello, wörld! 👋 <|im_end|>"


def answer(server: Server, path: str, **body: Any) -> Any:
    response = server.post(path, body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("model", MODELS)
def test_a_text_comes_back_from_its_tokens(server: Server, model: str) -> None:
    server.load(model)
    found = answer(server, "/v1/tokenize", content=TEXT, with_pieces=True)
    tokens = [token["id"] for token in found["tokens"]]
    assert tokens == answer(server, "/tokenize", content=TEXT)["tokens"]
    assert found["tokens"][-1]["piece"] == "<|im_end|>"
    assert answer(server, "/v1/detokenize", tokens=tokens)["content"] == TEXT
    plain = answer(server, "/v1/tokenize", content=TEXT, parse_special=False)
    assert plain["length"] > len(tokens)
    assert answer(server, "/v1/detokenize", tokens=plain["tokens"])["content"] == TEXT
    refused = server.post("/v1/detokenize", {"tokens": [2**31 - 1]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tokens")


@pytest.mark.parametrize("model", MODELS)
def test_a_template_shows_what_a_chat_would_read(server: Server, model: str) -> None:
    server.load(model)
    messages = [{"role": "user", "content": "Hello!"}]
    prompt = answer(server, "/v1/apply-template", messages=messages)["prompt"]
    assert "Hello!" in prompt
    tokens = answer(server, "/v1/tokenize", content=prompt)["tokens"]
    assert len(tokens) == answer(server, "/v1/internal/token-count", messages=messages)["length"]


@pytest.mark.parametrize("model", MODELS)
def test_the_same_text_is_the_likeliest(server: Server, model: str) -> None:
    server.load(model)
    documents = ["one, two, three", "Hello there!", "The sum is 17"]
    found = answer(server, "/v1/rerank", query="Hello there!", documents=documents, top_n=2)
    assert found["results"][0]["index"] == 1
    assert found["results"][0]["relevance_score"] == pytest.approx(1.0, abs=1e-4)
    assert len(found["results"]) == 2


@pytest.mark.parametrize("model", MODELS)
def test_a_gap_is_filled_or_refused_by_name(server: Server, model: str) -> None:
    server.load(model)
    body = {"prompt": "def f(", "suffix": "): pass", "max_tokens": 4}
    found = server.post("/v1/completions", body)
    infill = server.post("/infill", {"input_prefix": "def f(", "input_suffix": "): pass"})
    if model == "fake":
        assert found.json()["usage"]["prompt_tokens"] == len("def f(): pass") + 3
        assert infill.json()["content"]
    else:
        assert (found.status_code, found.json()["error"]["param"]) == (400, "suffix")
        assert infill.status_code == 400


@pytest.mark.parametrize("model", ["demo", "demo.gguf"])
def test_an_answer_goes_on_where_it_was_begun(server: Server, model: str) -> None:
    server.load(model)
    begun = [
        {"role": "user", "content": "Count from 1 to 5."},
        {"role": "assistant", "content": "1, 2, "},
    ]
    found = answer(
        server, "/v1/chat/completions", messages=begun, continue_final_message=True, temperature=0
    )
    assert found["choices"][0]["message"]["content"] == "3, 4, 5"


@pytest.mark.parametrize("model", MODELS)
def test_llama_servers_completion_is_answered(server: Server, model: str) -> None:
    server.load(model)
    body = {"prompt": "1, 2, 3,", "n_predict": 4, "temperature": 0, "return_tokens": True}
    found = answer(server, "/completion", **body)
    same = answer(server, "/v1/completions", prompt="1, 2, 3,", max_tokens=4, temperature=0)
    assert found["content"] == same["choices"][0]["text"]
    assert (len(found["tokens"]), found["stop_type"]) == (4, "limit")
