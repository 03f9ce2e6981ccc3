"""HEAD, slashes at the end, bodies without a type, HTTP/1.0: answered as they were meant."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.integration.api_rig import Rig

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/metrics", "/docs", "/openapi.json"])
def test_head_is_get_without_a_body(rig: Rig, path: str) -> None:
    head, get = rig.http.head(path), rig.http.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert rig.http.head("/nothing").status_code == 404
    assert rig.http.head(CHAT).status_code == 405


def test_head_of_an_endless_stream_ends(rig: Rig) -> None:
    rig.load()
    job = rig.post(CHAT, {**HELLO, "background": True}).json()["id"]
    answer = rig.http.head(f"/v1/jobs/{job}/events", timeout=10)
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    "path", ["/health/", "/v1/models/", "/v1/models//", "/management/processes/"]
)
def test_a_slash_at_the_end_means_nothing(rig: Rig, path: str) -> None:
    answer = rig.http.get(path)
    assert (answer.status_code, answer.history) == (200, [])


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/json"]
)
def test_a_body_is_json_whatever_its_type(rig: Rig, content_type: str | None) -> None:
    rig.load()
    headers = {} if content_type is None else {"Content-Type": content_type}
    body = json.dumps({**HELLO, "background": True}).encode()
    answer = rig.http.post(f"{CHAT}/", content=body, headers=headers)
    assert answer.status_code == 202
    answer = rig.http.post(CHAT, content=b"a=b", headers=headers)
    assert answer.status_code == 400
    assert "not valid JSON" in answer.json()["error"]["message"]


def raw(rig: Rig, request: bytes) -> bytes:
    parts = []
    with rig.connect() as client:
        client.settimeout(20)
        client.sendall(request)
        while part := client.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_a_stream_to_an_old_client_has_no_chunks(rig: Rig) -> None:
    rig.load()
    body = json.dumps({**HELLO, "stream": True}).encode()
    head = f"POST {CHAT} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    future = rig._threads.submit(raw, rig, head.encode() + body)
    rig.take().answer("abc")
    answer, _, rest = future.result(20).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in answer.lower()
    assert rest.startswith(b"data: ")
    assert rest.endswith(b"data: [DONE]\n\n")


def test_a_whole_answer_to_an_old_client(rig: Rig) -> None:
    answer = raw(rig, b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert httpx.Response(200, content=answer.partition(b"\r\n\r\n")[2]).json()
