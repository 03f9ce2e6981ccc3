"""Each dialect names its own parameter, whatever the text of the error says.

Every message of an error is replaced by noise: what a client branches on is data, and is never read
out of an English sentence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from redis import Redis

from jobs.contract.errors import JobError
from tests.conftest import RedisServer
from tests.helpers.told import told
from tests.integration.api_rig import Rig, running_api

NOISE = "Xq7 zzz: nothing that a sentence would say"
HALF = "\ud800"  # of a surrogate pair: no text
HELLO = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "json_schema", "schema": {}}

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/completions": {"prompt": "x"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": HELLO, "max_tokens": 5},
    "/completion": {"prompt": "x"},
    "/infill": {"input_prefix": "x"},
    "/v1/internal/logits": {"prompt": "x"},
    "/v1/internal/encode": {"text": "x"},
    "/v1/internal/decode": {"tokens": [1]},
    "/v1/embeddings": {"input": "x"},
    "/v1/rerank": {"query": "x", "documents": ["y"]},
    "/v1/tokenize": {"content": "x"},
    "/v1/detokenize": {"tokens": [1]},
    "/api/chat": {"messages": HELLO},
    "/api/generate": {"prompt": "x"},
    "/api/embed": {"input": "x"},
    "/api/embeddings": {"prompt": "x"},
}
"""What each route answers; a case changes one field of it, or two."""


def wrong(path: str, param: str, *marks: Any, **changes: Any) -> Any:
    """A case; ``param`` stands for the fields that are changed, if there are several."""
    return pytest.param(path, changes, param, id=f"{path} {'+'.join(changes)}", marks=marks)


REFUSED_AT_ONCE = [
    wrong("/v1/chat/completions", "messages", messages=[]),
    wrong("/v1/chat/completions", "messages[0].role", messages=[{"role": "king"}]),
    wrong("/v1/chat/completions", "max_completion_tokens", max_completion_tokens=0),
    wrong("/v1/chat/completions", "temperature", temperature=-0.1),
    wrong("/v1/chat/completions", "stop", stop=["x"] * 65),
    wrong("/v1/chat/completions", "logit_bias", logit_bias={"x": 1}),
    wrong("/v1/chat/completions", "repet_penalty", repetition_penalty=1.2, repet_penalty=1.1),
    wrong("/v1/chat/completions", "response_format", response_format={"type": "xml"}),
    wrong(
        "/v1/chat/completions",
        "response_format.json_schema.schema",
        response_format={"type": "json_schema"},
    ),
    wrong("/v1/chat/completions", "tool_choice", tool_choice="required"),
    wrong("/v1/chat/completions", "tools[0]", tools=[{"type": "function"}]),
    wrong("/v1/completions", "prompt", prompt=[-1]),
    wrong("/v1/completions", "max_tokens", max_tokens=-2, echo=True),
    wrong("/v1/completions", "suffix", suffix="y", echo=True, logprobs=1),
    wrong("/v1/responses", "input", input=[]),
    wrong("/v1/responses", "input", input=HALF),
    wrong("/v1/responses", "instructions", instructions=HALF),
    wrong("/v1/responses", "input[0].role", input=[{"role": "king", "content": "x"}]),
    wrong("/v1/responses", "max_output_tokens", max_output_tokens=0),
    wrong("/v1/responses", "top_logprobs", top_logprobs=21),
    wrong("/v1/responses", "text.format", text={"format": {"type": "xml"}}),
    wrong("/v1/responses", "text.format.schema", text={"format": {"type": "json_schema"}}),
    wrong("/v1/responses", "reasoning.effort", reasoning={"effort": "x"}),
    wrong("/v1/responses", "tool_choice", tool_choice="required"),
    wrong("/v1/responses", "tools[0].name", tools=[{"type": "function"}]),
    wrong("/v1/responses", "stop", stop=["x"] * 65),
    wrong("/v1/responses", "input[0].id", input=[{"type": "item_reference", "id": "msg_0"}]),
    wrong("/v1/responses", "prompt", prompt={"id": "x"}),
    wrong("/v1/messages", "messages", messages=[]),
    wrong("/v1/messages", "messages", messages=[{"role": "user", "content": HALF}]),
    wrong("/v1/messages", "system", system=HALF),
    wrong("/v1/messages", "messages[0].role", messages=[{"role": "king", "content": "x"}]),
    wrong("/v1/messages", "max_tokens", max_tokens=0),
    wrong("/v1/messages", "stop_sequences", stop_sequences=["x"] * 65),
    wrong("/v1/messages", "temperature", temperature=2),
    wrong("/v1/messages", "tool_choice", tool_choice={"type": "any"}),
    wrong("/v1/messages", "tool_choice.name", tool_choice={"type": "tool"}),
    wrong("/v1/messages", "tools[0].name", tools=[{"name": ""}]),
    wrong(
        "/v1/messages", "thinking.budget_tokens", thinking={"type": "enabled", "budget_tokens": 0}
    ),
    wrong(
        "/v1/messages",
        "thinking.budget_tokens",
        thinking={"type": "enabled", "budget_tokens": 2**40},
    ),
    wrong("/v1/messages", "output_config.effort", output_config={"effort": "x"}),
    wrong("/v1/messages", "grammar", output_config={"format": SCHEMA}, grammar="x"),
    wrong("/v1/messages", "mirostat_mode", mirostat_mode=9),
    wrong("/completion", "prompt", prompt=""),
    wrong("/completion", "n_predict", n_predict=-2),
    wrong("/completion", "repeat_last_n", repeat_last_n=-2),
    wrong("/completion", "mirostat", mirostat=3),
    wrong("/completion", "stop", stop=["x"] * 65),
    wrong("/completion", "logit_bias", logit_bias=[[1]]),
    wrong("/completion", "logit_bias", logit_bias=[[1, 1000]]),
    wrong("/completion", "n_probs", n_probs=21),
    wrong("/completion", "lora", lora=[1]),
    wrong("/completion", "grammar", json_schema={}, grammar="x"),
    wrong("/completion", "grammar", grammar=HALF),
    wrong("/infill", "n_predict", n_predict=-2),
    wrong("/infill", "input_prefix", input_prefix=5),
    wrong("/infill", "input_prefix", input_prefix=HALF),
    wrong("/infill", "input_suffix", input_suffix=HALF),
    wrong("/v1/internal/logits", "prompt", prompt=""),
    wrong("/v1/internal/logits", "use_samplers", use_samplers=True),
    wrong("/v1/internal/logits", "top_logits", top_logits=0),
    wrong("/v1/internal/encode", "text", text=HALF),
    wrong("/v1/internal/decode", "tokens[0]", tokens=[-1]),
    wrong("/v1/embeddings", "input", input=[]),
    wrong("/v1/embeddings", "input", input=HALF),
    wrong("/v1/embeddings", "dimensions", dimensions=0),
    wrong("/v1/embeddings", "encoding_format", encoding_format="x"),
    wrong("/v1/embeddings", "input_type", input_type="x"),
    wrong("/v1/embeddings", "prompt_name", input_type="query", prompt_name="query"),
    wrong("/v1/embeddings", "prompt_name", prompt_name=HALF),
    wrong("/v1/rerank", "documents", documents=[]),
    wrong("/v1/rerank", "documents", documents=[HALF]),
    wrong("/v1/rerank", "query", query=HALF),
    wrong("/v1/rerank", "top_n", top_n=0),
    wrong("/v1/tokenize", "content", content=HALF),
    wrong("/v1/detokenize", "tokens[0]", tokens=[-1]),
    wrong("/api/chat", "messages[0].role", messages=[{"role": "king"}]),
    wrong("/api/chat", "messages[0].images", messages=[{"role": "user", "images": ["aGk="]}]),
    wrong("/api/chat", "messages", messages=[{"role": "user", "content": HALF}]),
    wrong("/api/chat", "options.top_k", options={"top_k": 2.5}),
    wrong("/api/chat", "tools[0]", tools=[{"type": "function"}]),
    wrong("/api/chat", "think", think="x"),
    wrong("/api/chat", "format", format="xml"),
    wrong("/api/chat", "keep_alive", keep_alive="soon"),
    wrong("/api/generate", "template", template="{{ .Prompt }}"),
    wrong("/api/generate", "context", context=[1]),
    wrong("/api/generate", "images", images=["aGk="]),
    wrong("/api/generate", "system", system="x", raw=True),
    wrong("/api/generate", "top_logprobs", top_logprobs=2),
    wrong("/api/embed", "input", input=["x", ""]),
    wrong("/api/embed", "input", input=HALF),
    wrong("/api/embeddings", "prompt", prompt=HALF),
    wrong("/api/embeddings", "prompt", prompt=5),
]


def found(path: str, workers_param: str, param: str, *marks: Any) -> Any:
    """A parameter as the worker calls it, and as a client of that route does."""
    return pytest.param(path, workers_param, param, id=f"{path} {workers_param}", marks=marks)


CHATS_SCHEMA = "response_format.json_schema.schema"

FOUND_BY_A_WORKER = [
    found("/v1/chat/completions", "messages", "messages"),
    found("/v1/chat/completions", "prompt", "messages"),
    found("/v1/chat/completions", "tools", "tools"),
    found("/v1/chat/completions", CHATS_SCHEMA, CHATS_SCHEMA),
    found("/v1/completions", "prompt", "prompt"),
    found("/v1/completions", "messages", "prompt"),
    found("/v1/completions", "suffix", "suffix"),
    found("/v1/responses", "messages", "input"),
    found("/v1/responses", "prompt", "input"),
    found("/v1/responses", "tool_choice", "tool_choice"),
    found("/v1/responses", CHATS_SCHEMA, "text.format.schema"),
    found("/v1/messages", "messages", "messages"),
    found("/v1/messages", "prompt", "messages"),
    found("/v1/messages", "tools", "tools"),
    found("/v1/messages", CHATS_SCHEMA, "output_config.format.schema"),
    found("/completion", "prompt", "prompt"),
    found("/completion", "messages", "prompt"),
    found("/completion", "json_schema", "json_schema"),
    found("/completion", "logit_bias", "logit_bias"),
    found("/infill", "suffix", "input_suffix"),
    found("/v1/internal/logits", "prompt", "prompt"),
    found("/api/chat", "prompt", "messages"),
    found("/api/chat", "format", "format"),
    found("/api/generate", "messages", "prompt"),
    found("/api/generate", "suffix", "suffix"),
    found("/v1/internal/logits", "messages", "prompt"),
]


@pytest.fixture(scope="module")
def rig(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One API for the whole module: its jobs are refused, or ended at once."""
    with Redis.from_url(redis_server.url, protocol=2) as client:
        client.flushall()
    with running_api(tmp_path_factory.mktemp("api"), redis_server.url) as running:
        running.load()
        yield running


@pytest.fixture(autouse=True)
def _noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """No error of ours or of the framework's keeps its text."""
    begin, list_errors = JobError.__init__, RequestValidationError.errors

    def begin_noisily(self: JobError, message: str, param: str | None = None) -> None:
        begin(self, NOISE, param)

    def list_noisily(self: RequestValidationError) -> list[dict[str, Any]]:
        return [{**error, "msg": NOISE} for error in list_errors(self)]

    monkeypatch.setattr(JobError, "__init__", begin_noisily)
    monkeypatch.setattr(RequestValidationError, "errors", list_noisily)


@pytest.mark.parametrize(("path", "changes", "param"), REFUSED_AT_ONCE)
def test_what_the_api_refuses_is_named_as_the_client_named_it(
    rig: Rig, path: str, changes: dict[str, Any], param: str
) -> None:
    body = json.dumps({**BODIES[path], **changes})  # httpx would not send half a surrogate pair
    answer = rig.http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    message, named = told(answer)
    assert (named, NOISE in message) == (param, True)


@pytest.mark.parametrize(("path", "workers_param", "param"), FOUND_BY_A_WORKER)
def test_what_a_worker_refuses_is_named_as_the_client_named_it(
    rig: Rig, path: str, workers_param: str, param: str
) -> None:
    answer = rig.post_soon(path, BODIES[path])
    rig.take().failed("invalid_request", NOISE, workers_param)
    message, named = told(answer.result(20))
    assert (named, NOISE in message) == (param, True)


def test_every_dialect_is_asked() -> None:
    asked = {case.values[0] for case in REFUSED_AT_ONCE}
    assert asked == BODIES.keys()
