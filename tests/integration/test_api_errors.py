"""Wrong requests, foreign callers and a storage that is away: the right status, one body shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.api_rig import Rig, read_until, running_api, wait_until

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hi"}]


def check_shape(body: Any) -> None:
    assert set(body) == {"error", "detail"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["detail"] == body["error"]["message"]


WRONG: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, {}, "messages"),
    (CHAT, {"messages": []}, "messages"),
    (CHAT, {"messages": HELLO, "prompt": "x"}, "messages"),
    (CHAT, {"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
    (CHAT, {"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
    (CHAT, {"messages": HELLO, "temperature": "hot"}, "temperature"),
    (CHAT, {"messages": HELLO, "temperature": True}, "temperature"),
    (CHAT, {"messages": HELLO, "temperature": -0.1}, "temperature"),
    (CHAT, {"messages": HELLO, "top_p": 1.5}, "top_p"),
    (CHAT, {"messages": HELLO, "max_tokens": 0}, "max_tokens"),
    (CHAT, {"messages": HELLO, "max_tokens": 2.5}, "max_tokens"),
    (CHAT, {"messages": HELLO, "max_tokens": 10**30}, "max_tokens"),
    (CHAT, {"messages": HELLO, "max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens"),
    (CHAT, {"messages": HELLO, "n": 17}, "n"),
    (CHAT, {"messages": HELLO, "stop": ["x"] * 65}, "stop"),
    (CHAT, {"messages": HELLO, "stop": [""]}, "stop"),
    (CHAT, {"messages": HELLO, "logit_bias": {"x": 1}}, "logit_bias"),
    (CHAT, {"messages": HELLO, "logit_bias": {"5": 101}}, "logit_bias"),
    (CHAT, {"messages": HELLO, "top_logprobs": 2}, "top_logprobs"),
    (CHAT, {"messages": HELLO, "presence_penalty": 3}, "presence_penalty"),
    (CHAT, {"messages": HELLO, "repet_penalty": 1.1, "repetition_penalty": 1.2}, "repet_penalty"),
    (CHAT, {"messages": HELLO, "response_format": {"type": "json_object"}}, "response_format"),
    (CHAT, {"messages": HELLO, "tool_choice": "required"}, "tool_choice"),
    (CHAT, {"messages": HELLO, "tools": [{"type": "function"}]}, "tools[0]"),
    ("/v1/completions", {"prompt": ""}, "prompt"),
    ("/v1/completions", {"prompt": [1, "a"]}, "prompt"),
    ("/v1/completions", {"prompt": [-1]}, "prompt"),
    ("/v1/completions", {"prompt": "x", "suffix": "y"}, "suffix"),
    ("/v1/completions", {"prompt": "x", "echo": True, "logprobs": 1}, "echo"),
    ("/v1/completions", {"prompt": [1, 2], "echo": True}, "echo"),
    ("/v1/completions", {"prompt": "\ud800"}, "prompt"),
    ("/v1/internal/token-count", {}, "prompt"),
    ("/v1/internal/token-count", {"prompt": "a", "messages": HELLO}, "messages"),
    ("/v1/internal/model/load", {}, "llm_model_name"),
    ("/v1/internal/model/load", {"llm_model_name": "fake", "adapter_name": "a"}, "adapter_name"),
    ("/v1/internal/model/load", {"llm_model_name": "fake", "slots": 0}, "slots"),
    ("/management/process/clean-up", {"timeout": -1}, "timeout"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "param"), WRONG)
def test_a_wrong_value_is_a_400_that_names_the_parameter(
    rig: Rig, path: str, body: dict[str, Any], param: str
) -> None:
    rig.load()
    answer = rig.http.post(
        path, content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400, answer.text
    check_shape(answer.json())
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
    rig.load()
    answer = rig.http.post(
        "/v1/completions", content=BROKEN[name], headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400, answer.text
    check_shape(answer.json())
    assert rig.waiting_ids() == []


def test_a_form_is_no_json(rig: Rig) -> None:
    rig.load()
    answer = rig.http.post(
        "/v1/completions", content=b'{"prompt":"x"}', headers={"Content-Type": "text/plain"}
    )
    assert answer.status_code == 400


def test_unknown_fields_and_a_byte_order_mark_are_fine(rig: Rig) -> None:
    rig.load()
    body = b'\xef\xbb\xbf{"prompt":"x","unheard_of":{"a":1},"max_tokens":null}'
    headers = {"Content-Type": "application/json"}
    future = rig._threads.submit(rig.http.post, "/v1/completions", content=body, headers=headers)
    job = rig.take()
    assert job.request.max_tokens == 16
    job.answer("y")
    assert future.result().status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", CHAT, 405),
        ("GET", "/docs", 404),
        ("GET", "/v1/jobs/none", 404),
    ],
)
def test_unknown_routes_have_the_same_shape(rig: Rig, method: str, path: str, status: int) -> None:
    answer = rig.http.request(method, path)
    assert answer.status_code == status
    check_shape(answer.json())


def test_the_model_that_is_not_loaded_is_a_404(rig: Rig) -> None:
    answer = rig.post(CHAT, {"messages": HELLO, "model": "gpt-4"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("model_id", ["a" * 65, "tab\there"])
def test_a_model_id_out_of_shape_is_a_400(rig: Rig, model_id: str) -> None:
    answer = rig.post(CHAT, {"messages": HELLO}, X_Model_Id=model_id)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "X-Model-Id"


def test_a_model_id_of_any_script_finds_its_model(rig: Rig) -> None:
    rig.load("größe 1")
    raw = {"X-Model-Id": "größe 1".encode()}
    answer = rig.http.get("/v1/internal/model/info", headers=raw)
    assert answer.json()["model_id"] == "größe 1"


def test_a_full_queue_is_a_429_with_a_hint(tmp_path: Path, redis_url: str) -> None:
    with running_api(tmp_path, redis_url, max_queued_per_model=1) as rig:
        rig.load()
        waiting = rig.chat_soon()
        wait_until(rig.waiting_ids, "one job waits")
        answer = rig.post(CHAT, {"messages": HELLO})
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        assert answer.json()["error"]["code"] == "queue_full"
        rig.take().answer("x")
        assert waiting.result().status_code == 200


def test_without_redis_the_api_answers_503_and_is_healthy(tmp_path: Path) -> None:
    with running_api(tmp_path, f"unix://{tmp_path}/none.sock?db=0") as rig:
        assert rig.http.get("/health").json() == {"status": "ok"}
        ready = rig.http.get("/health/ready")
        assert (ready.status_code, ready.json()["reasons"]) == (503, ["Redis cannot be reached"])
        answer = rig.post(CHAT, {"messages": HELLO})
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        check_shape(answer.json())


class TestBodyLimit:
    @pytest.fixture
    def small(self, tmp_path: Path, redis_url: str) -> Any:
        with running_api(tmp_path, redis_url, max_body_bytes=2048) as rig:
            rig.load()
            yield rig

    def test_a_long_body_is_a_413(self, small: Rig) -> None:
        answer = small.post("/v1/completions", {"prompt": "x" * 5000})
        assert answer.status_code == 413
        check_shape(answer.json())

    def test_a_long_body_in_chunks_is_a_413(self, small: Rig) -> None:
        parts = (b"x" * 1000 for _ in range(50))
        answer = small.http.post(
            "/v1/completions", content=parts, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 413

    def test_who_asks_first_is_told_before_sending(self, small: Rig) -> None:
        client = small.connect()
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        client.sendall(f"{head}Content-Length: 999999\r\n\r\n".encode())
        assert b"413" in read_until(client, b"body_too_large").split(b"\r\n")[0]
        client.close()

    def test_a_body_at_the_limit_is_read(self, small: Rig) -> None:
        body = json.dumps({"prompt": ""}).encode()
        answer = small.http.post(
            "/v1/completions",
            content=body + b" " * (2048 - len(body)),
            headers={"Content-Type": "application/json"},
        )
        assert answer.json()["error"]["param"] == "prompt"
