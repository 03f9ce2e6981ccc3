"""Every wrong value is a 400 that names itself, in one body shape, and no job comes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from tests.conftest import RedisServer
from tests.integration.api_rig import Rig, check_error_shape, running_api

FORMAT_SCHEMA = "response_format.json_schema.schema"
CHAT = "/v1/chat/completions"
LOAD = "/v1/internal/model/load"
FAKE = {"llm_model_name": "fake"}
HELLO = [{"role": "user", "content": "hi"}]
HI = {"messages": HELLO}
IMAGE = [{"role": "user", "content": [{"type": "image_url"}]}]


@pytest.fixture(scope="module")
def rig(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One API for the whole module: no request here gets as far as changing anything."""
    with Redis.from_url(redis_server.url, protocol=2) as client:
        client.flushall()
    with running_api(tmp_path_factory.mktemp("api"), redis_server.url) as running:
        running.load()
        yield running


WRONG: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, {}, "messages"),
    (CHAT, {"messages": []}, "messages"),
    (CHAT, {"messages": HELLO, "prompt": "x"}, "messages"),
    (CHAT, {"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
    (CHAT, {"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    (CHAT, {"messages": IMAGE}, "messages[0].content[0]"),
    (CHAT, {"messages": HELLO, "temperature": "hot"}, "temperature"),
    (CHAT, {"messages": HELLO, "temperature": True}, "temperature"),
    (CHAT, {"messages": HELLO, "temperature": -0.1}, "temperature"),
    (CHAT, {"messages": HELLO, "top_p": 1.5}, "top_p"),
    (CHAT, {"messages": HELLO, "max_tokens": 0}, "max_tokens"),
    (CHAT, {"messages": HELLO, "max_tokens": 2.5}, "max_tokens"),
    (CHAT, {"messages": HELLO, "max_tokens": 10**30}, "max_tokens"),
    (CHAT, {**HI, "max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens"),
    (CHAT, {"messages": HELLO, "n": 17}, "n"),
    (CHAT, {"messages": HELLO, "stop": ["x"] * 65}, "stop"),
    (CHAT, {"messages": HELLO, "stop": [5]}, "stop"),
    (CHAT, {"messages": HELLO, "logit_bias": {"x": 1}}, "logit_bias"),
    (CHAT, {"messages": HELLO, "logit_bias": {"5": 101}}, "logit_bias"),
    (CHAT, {"messages": HELLO, "top_logprobs": 2}, "top_logprobs"),
    (CHAT, {"messages": HELLO, "presence_penalty": 3}, "presence_penalty"),
    (CHAT, {"messages": HELLO, "repet_penalty": 1.1, "repetition_penalty": 1.2}, "repet_penalty"),
    (CHAT, {"messages": HELLO, "response_format": {"type": "xml"}}, "response_format"),
    (CHAT, {"messages": HELLO, "response_format": {"type": "json_schema"}}, FORMAT_SCHEMA),
    (CHAT, {"messages": HELLO, "response_format": {"type": "json_object"}, "regex": "a"}, "regex"),
    (CHAT, {"messages": HELLO, "choice": []}, "choice"),
    (CHAT, {"messages": HELLO, "choice": [1]}, "choice[0]"),
    (CHAT, {"messages": HELLO, "tool_choice": "required"}, "tool_choice"),
    (CHAT, {"messages": HELLO, "tools": [{"type": "function"}]}, "tools[0]"),
    ("/v1/completions", {"prompt": ""}, "prompt"),
    ("/v1/completions", {"prompt": [1, "a"]}, "prompt"),
    ("/v1/completions", {"prompt": [-1]}, "prompt"),
    ("/v1/completions", {"messages": HELLO, "suffix": "y"}, "suffix"),
    ("/v1/completions", {"prompt": "x", "suffix": "y", "echo": True, "logprobs": 1}, "suffix"),
    ("/v1/completions", {"prompt": "x", "max_tokens": 0}, "max_tokens"),
    ("/v1/completions", {"prompt": "x", "max_tokens": -2, "echo": True}, "max_tokens"),
    ("/v1/completions", {"messages": HELLO, "echo": True, "logprobs": 1}, "echo"),
    ("/v1/completions", {"prompt": "x", "adapter_name": ["a"]}, "adapter_name"),
    ("/v1/completions", {"prompt": [1, 2], "echo": True}, "echo"),
    ("/v1/completions", {"prompt": "\ud800"}, "prompt"),
    ("/v1/internal/token-count", {}, "prompt"),
    ("/v1/internal/token-count", {"prompt": "a", "messages": HELLO}, "messages"),
    ("/v1/internal/model/load", {}, "llm_model_name"),
    (LOAD, {**FAKE, "draft": "a"}, "draft"),
    (LOAD, {**FAKE, "slots": 0}, "slots"),
    (LOAD, {**FAKE, "adapter_name": 5}, "adapter_name"),
    (LOAD, {**FAKE, "kv_bits": 7}, "kv_bits"),
    (LOAD, {**FAKE, "kv_bits": "8"}, "kv_bits"),
    (LOAD, {**FAKE, "num_draft_tokens": 0}, "num_draft_tokens"),
    (LOAD, {**FAKE, "prompt_cache_bytes": -1}, "prompt_cache_bytes"),
    (LOAD, {**FAKE, "prompt_cache_bytes": 1.5}, "prompt_cache_bytes"),
    (LOAD, {**FAKE, "draft_model": "tiny.gguf"}, "draft_model"),
    ("/management/process/clean-up", {"timeout": -1}, "timeout"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "param"), WRONG)
def test_a_wrong_value_is_a_400_that_names_the_parameter(
    rig: Rig, path: str, body: dict[str, Any], param: str
) -> None:
    answer = rig.http.post(
        path, content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400, answer.text
    check_error_shape(answer.json())
    assert answer.json()["error"]["param"] == param
    assert rig.waiting_ids() == []


BROKEN = {
    "empty": b"",
    "cut": b'{"messages": [',
    "list": b"[]",
    "text": b'"x"',
    "null": b"null",
    "bad utf-8": b'{"prompt": "\xff"}',
    "deep": b'{"prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "long number": b'{"prompt":"x","seed":' + b"9" * 5000 + b"}",
    "nan": b'{"prompt":"x","temperature":NaN}',
    "infinity": b'{"prompt":"x","temperature":1e999}',
    "nan in a tool": b'{"messages":[{"role":"user","content":"x"}],'
    b'"tools":[{"type":"function","function":{"name":"f","x":NaN}}]}',
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_body_is_a_400(rig: Rig, name: str) -> None:
    answer = rig.http.post(
        "/v1/completions", content=BROKEN[name], headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400, answer.text
    check_error_shape(answer.json())
    assert rig.waiting_ids() == []
