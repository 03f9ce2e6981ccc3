"""Wrong requests, foreign callers and a storage that is away: the right status, one body shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig, check_error_shape, read_until, running_api

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hi"}]


def test_a_form_is_no_json(rig: Rig) -> None:
    rig.load()
    for content in (b"prompt=x", b"--x\r\n"):
        answer = rig.http.post("/v1/completions", content=content)
        assert answer.status_code == 400
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = rig.http.post("/v1/completions", content=b'{"prompt":"x"}', headers=form)
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
        ("GET", "/docs/none", 404),
        ("GET", "/v1/jobs/none", 404),
    ],
)
def test_unknown_routes_have_the_same_shape(rig: Rig, method: str, path: str, status: int) -> None:
    answer = rig.http.request(method, path)
    assert answer.status_code == status
    check_error_shape(answer.json())


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
    raw = [(b"X-Model-Id", "größe 1".encode())]
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
        check_error_shape(answer.json())


class TestBodyLimit:
    @pytest.fixture
    def small(self, tmp_path: Path, redis_url: str) -> Any:
        with running_api(tmp_path, redis_url, max_body_bytes=2048) as rig:
            rig.load()
            yield rig

    def test_a_long_body_is_a_413(self, small: Rig) -> None:
        answer = small.post("/v1/completions", {"prompt": "x" * 5000})
        assert answer.status_code == 413
        check_error_shape(answer.json())

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
