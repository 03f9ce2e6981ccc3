"""Keep-alives and stuck clients, with the clock's steps made short."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.web import sse
from api.web.sse import SseWriter


class Client:
    """An ASGI ``send`` that notes what it gets, and may stop taking."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.got = asyncio.Event()

    async def send(self, message: Any) -> None:
        await self.takes.wait()
        self.messages.append(message)
        self.got.set()

    @property
    def bodies(self) -> list[bytes]:
        return [m["body"] for m in self.messages if m["type"] == "http.response.body"]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    for name, value in [("_TICK_S", 0.01), ("_PING_S", 0.11), ("_SEND_TIMEOUT_S", 0.03)]:
        monkeypatch.setattr(sse, name, value)
    return Client()


def fail(error: Exception) -> None:
    raise AssertionError(error)


async def test_headers_go_out_once_before_the_first_event(client: Client) -> None:
    writer = SseWriter(client.send, {"X-Job-Id": "j"})
    await writer.open()
    await writer.open()
    await writer.write(b"data: 1\n\n")
    await writer.close()
    assert [m["type"] for m in client.messages] == ["http.response.start"] + [
        "http.response.body"
    ] * 2
    assert (b"x-job-id", b"j") in client.messages[0]["headers"]
    assert [m.get("more_body") for m in client.messages] == [None, True, False]


async def test_a_silent_answer_gets_headers_and_comments_without_a_blank_line(
    client: Client,
) -> None:
    writer = SseWriter(client.send, {})
    async with writer.kept_alive(fail):
        while len(client.bodies) < 2:
            client.got.clear()
            async with asyncio.timeout(5):
                await client.got.wait()
    assert writer.is_open
    assert set(client.bodies) == {b":\n"}


async def test_a_client_that_stops_reading_is_given_up(client: Client) -> None:
    writer = SseWriter(client.send, {})
    await writer.open()
    client.takes.clear()
    given_up: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
    async with writer.kept_alive(given_up.set_result):
        stuck = asyncio.create_task(writer.write(b"data: 1\n\n"))
        async with asyncio.timeout(5):
            error = await given_up
        stuck.cancel()
    assert "does not read" in str(error)
    await writer.close()  # waits for nothing
    assert client.bodies == []


async def test_a_stream_may_have_keep_alives_of_its_own(client: Client) -> None:
    writer = SseWriter(client.send, {}, lambda: b"event: ping\n\n")
    async with writer.kept_alive(fail), asyncio.timeout(5):
        while len(client.messages) < 2:
            client.got.clear()
            await client.got.wait()
    assert client.bodies[0] == b"event: ping\n\n"
