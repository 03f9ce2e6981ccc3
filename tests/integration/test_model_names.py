"""Which model a name means is one rule on every route: ids, names, aliases, or a 404."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from jobs.storage import names
from tests.helpers.anthropic_bodies import USER, check_anthropic_error
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig, check_error_shape, running_api

CHAT = "/v1/chat/completions"
_MESSAGES: dict[str, Any] = {"messages": [USER]}
BODIES: dict[str, dict[str, Any]] = {
    CHAT: _MESSAGES,
    "/chat/completions": _MESSAGES,
    "/v1/completions": {"prompt": "a"},
    "/v1/responses": {"input": "a"},
    "/v1/responses/input_tokens": {"input": "a"},
    "/v1/messages": {**_MESSAGES, "max_tokens": 4},
    "/v1/messages/count_tokens": _MESSAGES,
    "/v1/embeddings": {"input": "a"},
    "/v1/rerank": {"query": "a", "documents": ["b"]},
    "/v1/tokenize": {"content": "a"},
    "/tokenize": {"content": "a"},
    "/v1/detokenize": {"tokens": [1]},
    "/v1/apply-template": _MESSAGES,
    "/v1/internal/token-count": {"prompt": "a"},
    "/v1/internal/chat-prompt": _MESSAGES,
    "/v1/chat/completions/input_tokens": _MESSAGES,
    "/completion": {"prompt": "a"},
    "/infill": {"input_prefix": "a", "input_suffix": "b"},
    "/api/chat": _MESSAGES,
    "/api/generate": {"prompt": "a"},
    "/api/embed": {"input": "a"},
    "/api/embeddings": {"prompt": "a"},
}
ON_GENERATION_QUEUE = {
    CHAT, "/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/completion",
    "/infill", "/api/chat", "/api/generate",
}  # fmt: skip
BY_HEADER_ALONE = [
    ("GET", "/v1/internal/model/info"), ("GET", "/slots"), ("GET", "/props"),
    ("POST", "/management/process/clean-up"), ("GET", "/v1/internal/model/cache_memory"),
    ("POST", "/v1/internal/stop-generation"), ("GET", "/management/debug/latest"),
    ("POST", "/v1/internal/encode"), ("POST", "/v1/internal/model/unload"),
]  # fmt: skip
ALIASES = "gpt-4o=fake-20ms, claude-*=second, 7=fake"


@pytest.fixture
def aliased(tmp_path: Path, redis_url: str) -> Iterator[Rig]:
    with running_api(tmp_path, redis_url, model_aliases=ALIASES) as running:
        running.load("0", "fake")
        running.load("second", "fake-20ms")
        yield running


def check_not_found(path: str, answer: httpx.Response, param: str) -> str:
    """The error's message, once it is a 404 in the shape that the route's clients know."""
    body = answer.json()
    assert answer.status_code == 404, body
    assert "x-should-retry" not in answer.headers
    if path.startswith("/v1/messages"):
        assert check_anthropic_error(body) == "model_not_found"
        assert body["error"]["type"] == "not_found_error"
        assert body["error"]["details"]["param"] == param
    elif path.startswith("/api/"):
        assert (body["code"], body["param"]) == ("model_not_found", param)
        assert body["error"].startswith("model not found: ")
        return str(body["error"])
    else:
        check_error_shape(body)
        assert (body["error"]["code"], body["error"]["param"]) == ("model_not_found", param)
    return str(body["error"]["message"])


@pytest.mark.parametrize("path", BODIES)
def test_a_name_that_is_nobodys_is_a_404_that_lists_what_there_is(aliased: Rig, path: str) -> None:
    answer = aliased.post(path, {**BODIES[path], "model": "gpt-5"})
    message = check_not_found(path, answer, "model")
    for part in ("'gpt-5'", "'0' (fake)", "'second' (fake-20ms)", "/v1/internal/model/load"):
        assert part in message
    answer = aliased.post(path, {**BODIES[path], "model": "fake"}, X_Model_Id="7")
    assert "'second' (fake-20ms)" in check_not_found(path, answer, "X-Model-Id")


@pytest.mark.parametrize("path", BODIES)
def test_an_alias_means_its_model_and_a_suffix_is_no_part_of_it(aliased: Rig, path: str) -> None:
    kind = names.generation_queue if path in ON_GENERATION_QUEUE else names.control_queue
    key = aliased.store.queue(kind(names.slug_of("second"))).key
    models = ("gpt-4o", "claude-opus-4-5", "gpt-4o-no-thinking")
    for model in models:
        aliased.post_soon(path, {**BODIES[path], "model": model})
    wait_until(lambda: aliased.redis.llen(key) == len(models), f"{path} has queued all")


@pytest.mark.parametrize(("method", "path"), BY_HEADER_ALONE)
def test_an_id_under_which_nothing_is_loaded_is_a_404_that_lists_what_there_is(
    aliased: Rig, method: str, path: str
) -> None:
    aliased.supervise()
    body = {"timeout": 1, "text": "a"} if method == "POST" else None
    answer = aliased.http.request(method, path, json=body, headers={"X-Model-Id": "7"})
    assert "'second' (fake-20ms)" in check_not_found(path, answer, "X-Model-Id")


def test_with_nothing_loaded_the_answer_says_so(rig: Rig) -> None:
    for fields in ({}, {"model": "dummy"}, {"model": "gpt-4o"}):
        message = check_not_found(CHAT, rig.post(CHAT, {**_MESSAGES, **fields}), "model")
        assert message.startswith("no model is loaded: load one with `mgs load`")


def test_unknown_names_go_to_model_0_where_that_is_set(tmp_path: Path, redis_url: str) -> None:
    with running_api(tmp_path, redis_url, unknown_model="default") as rig:
        rig.load("0", "fake")
        future = rig.chat_soon(model="gpt-5")
        rig.take().answer("x")
        assert future.result().json()["model"] == "fake"


def test_a_model_that_is_not_loaded_is_not_answered_by_another(
    tmp_path: Path, redis_url: str
) -> None:
    """Its name is on disk, so it is somebody's; a name that is nobody's goes to model 0."""
    with running_api(tmp_path, redis_url, unknown_model="default", autoload=False) as rig:
        rig.load("0", "fake")
        for path, body in ((CHAT, _MESSAGES), ("/v1/embeddings", {"input": "x"})):
            answer = rig.post(path, {**body, "model": "tiny.gguf"})
            message = check_not_found(path, answer, "model")
            assert "'tiny.gguf' is no loaded model" in message
            assert "load others with `mgs load`" in message


def test_a_clients_own_check_of_its_models_name_finds_an_alias(aliased: Rig) -> None:
    with OpenAI(
        base_url=f"{aliased.url}/v1", api_key="x", _strict_response_validation=True
    ) as client:
        listed = {model.id: model.model_extra for model in client.models.list()}
        assert list(listed) == ["fake", "fake-20ms", "gpt-4o", "7", "tiny.gguf"]
        assert (listed["gpt-4o"]["model_id"], listed["7"]["model_id"]) == ("second", "0")
        for alias in ("gpt-4o", "claude-haiku-4-5", "gpt-4o-thinking"):
            shown = client.models.retrieve(alias)
            assert (shown.id, shown.model_extra["model_id"]) == (alias, "second")
        assert client.models.retrieve("second").id == "fake-20ms"


def test_jobs_are_filtered_by_an_alias(aliased: Rig) -> None:
    body = {**_MESSAGES, "background": True}
    ids = [
        aliased.post(CHAT, body, X_Model_Id=model_id).json()["id"] for model_id in ("0", "second")
    ]

    def listed(model: str) -> list[str]:
        answer = aliased.http.get("/v1/jobs", params={"model": model})
        return [job["id"] for job in answer.json()["data"]]

    assert listed("gpt-4o") == listed("claude-any") == listed("second") == ids[1:]
    assert listed("fake") == ids[:1]
    assert listed("nobody") == []


def test_facts_about_a_loaded_model_are_found_by_whatever_addresses_it(aliased: Rig) -> None:
    for name in ("gpt-4o", "second", "fake-20ms", "claude-any"):
        info = aliased.http.get(f"/v1/internal/model/info/{name}").json()
        assert (info["model_id"], info["model_name"]) == ("second", "fake-20ms")
    answer = aliased.http.get("/v1/internal/model/info/gpt-5")
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("path", "queue", "prompt_of"),
    [
        (CHAT, names.generation_queue, lambda request: request.prompts[0]),
        ("/v1/responses", names.generation_queue, lambda request: request.prompts[0]),
        ("/v1/messages", names.generation_queue, lambda request: request.prompts[0]),
        ("/v1/messages/count_tokens", names.control_queue, lambda request: request.prompt),
        ("/v1/responses/input_tokens", names.control_queue, lambda request: request.prompt),
        ("/v1/internal/token-count", names.control_queue, lambda request: request.prompt),
        ("/v1/apply-template", names.control_queue, lambda request: request.prompt),
    ],
)
@pytest.mark.parametrize(
    ("suffix", "is_on"), [("-thinking", True), ("-no-thinking", False), ("", None)]
)
def test_a_suffix_turns_thinking_on_and_off_on_every_route_that_reads_a_chat(
    aliased: Rig, path: str, queue: Any, prompt_of: Any, suffix: str, is_on: bool | None
) -> None:
    body = {**_MESSAGES, **BODIES[path], "model": f"gpt-4o{suffix}"}
    body.pop("prompt", None)
    aliased.post_soon(path, body)
    request = aliased.take(queue(names.slug_of("second"))).request
    assert (prompt_of(request).template_options or {}).get("enable_thinking") is is_on
