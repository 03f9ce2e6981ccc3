"""Clients that are slow to say what they want: cut in time, and nobody else notices."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

import api.web.protocol
from tests.helpers.sse import frames
from tests.integration.api_rig import Rig, check_error_shape, raw_post, read_until

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "hi"}]}
HEAD_S = 0.4
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.web.protocol, "HEAD_TIMEOUT_S", HEAD_S)


@pytest.fixture
def client(rig: Rig) -> Iterator[socket.socket]:
    with rig.connect() as connected:
        yield connected


def read_all(client: socket.socket) -> bytes:
    """What the server sends until it closes."""
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


def drip(client: socket.socket, data: bytes) -> tuple[bytes, float]:
    """Send byte for byte until the server answers; its answer, and the seconds it took."""
    start = time.monotonic()
    client.settimeout(0.02)
    try:
        for number in range(len(data)):
            client.sendall(data[number : number + 1])
            try:
                return client.recv(65536), time.monotonic() - start
            except TimeoutError:
                continue
    except ConnectionError:
        return b"", time.monotonic() - start
    raise AssertionError("the server waits for ever")


def test_a_head_that_drips_in_is_cut_and_told_so(client: socket.socket) -> None:
    answer, seconds = drip(client, GET + b"X-A: b\r\n" * 1000)
    assert HEAD_S / 2 < seconds < HEAD_S + 2
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    check_error_shape(json.loads(body))


def test_a_connection_that_never_asks_is_closed(client: socket.socket) -> None:
    start = time.monotonic()
    assert read_all(client) == b""
    assert HEAD_S / 2 < time.monotonic() - start < HEAD_S + 2


def test_the_second_head_on_a_connection_has_no_more_time(client: socket.socket) -> None:
    client.sendall(GET + b"\r\n")
    read_until(client, b'{"status":"ok"}')
    answer, seconds = drip(client, GET + b"X-A: b\r\n" * 1000)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert seconds < HEAD_S + 2


def test_a_body_that_drips_in_after_its_refusal_is_cut(client: socket.socket) -> None:
    post = b"POST /v1/models HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 100000\r\n\r\n"
    client.sendall(post)
    assert read_until(client, b'MGS_ALLOWED_HOSTS"}').startswith(b"HTTP/1.1 421 ")
    answer, seconds = drip(client, b"x" * 5000)
    assert answer == b""
    assert seconds < HEAD_S + 2


def test_whoever_asks_in_time_keeps_the_connection(client: socket.socket) -> None:
    end = time.monotonic() + 3 * HEAD_S
    while time.monotonic() < end:
        client.sendall(GET)
        time.sleep(HEAD_S / 4)
        client.sendall(b"\r\n")
        read_until(client, b'{"status":"ok"}')


def test_an_idle_connection_stays_open_between_requests(client: socket.socket) -> None:
    client.sendall(GET + b"\r\n")
    read_until(client, b'{"status":"ok"}')
    client.settimeout(2 * HEAD_S)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(5)
    client.sendall(GET + b"\r\n")
    assert b"200 OK" in read_until(client, b'{"status":"ok"}')


def test_a_long_answer_is_not_cut(rig: Rig) -> None:
    rig.load()
    future = rig.chat_soon(stream=True)
    job = rig.take()
    job.started()
    for _ in range(4):
        time.sleep(HEAD_S / 2)
        job.chunk("x")
    job.finished()
    assert frames(future.result().text)[-1] == "[DONE]"


def test_a_slow_body_has_the_bodys_time(rig: Rig, client: socket.socket) -> None:
    rig.load()
    data = raw_post(CHAT, HELLO)
    head, _, body = data.partition(b"\r\n\r\n")
    client.sendall(head + b"\r\n\r\n")
    for number in range(len(body)):
        client.sendall(body[number : number + 1])
        time.sleep(3 * HEAD_S / len(body))
    rig.take().answer("hello")
    assert b"hello" in read_until(client, b"hello")


def test_nonsense_is_refused_in_our_shape(client: socket.socket) -> None:
    client.sendall(b"\x16\x03\x01 not http\r\n\r\n")
    head, _, body = read_all(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    check_error_shape(json.loads(body))


def test_a_head_without_end_is_refused(client: socket.socket) -> None:
    head = GET + b"X-A: " + b"b" * 70_000
    client.sendall(head)
    answer, _, body = read_all(client).partition(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")
    check_error_shape(json.loads(body))


def test_hundreds_of_slow_and_silent_clients_hurt_nobody(rig: Rig) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(rig.connect()) for _ in range(500)]
        for client in slow[::2]:
            client.sendall(GET)
        times = []
        for _ in range(100):
            answer = rig.http.get("/health")
            assert answer.status_code == 200
            times.append(answer.elapsed.total_seconds())
        assert sorted(times)[98] < 0.25
        for client in slow:
            assert read_all(client)[:12] in (b"", b"HTTP/1.1 408")
