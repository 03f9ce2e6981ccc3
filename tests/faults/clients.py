"""Clients that read streams exactly, concurrently, and can disconnect at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.helpers.waiting import wait_until

_END_EVERY = 512


def prompt(length: int) -> str:
    """A prompt of ``num_tokens`` tokens of the fake engine."""
    return "k" * length


def expected(prompt_length: int, num_tokens: int) -> str:
    """The fake engine's greedy answer, up to the position that ends a generation.

    Its noise changes about one token in 5000; none before the first end.
    """
    places = range(prompt_length, prompt_length + num_tokens)
    assert places.stop < _END_EVERY, "ends in between"
    return "".join(f"{place // 8:07d} "[place % 8] for place in places)


def body(prompt_length: int = 8, max_tokens: int = 64, **fields: Any) -> dict[str, Any]:
    """A greedy streamed completion."""
    return {
        "prompt": prompt(prompt_length),
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        **fields,
    }


@dataclass
class Answer:
    """What a client has received so far."""

    status: int = 0
    text: str = ""
    num_chunks: int = 0
    error: dict[str, Any] | None = None
    is_done: bool = False
    job_id: str = ""
    sent_at: float = 0.0
    first_at: float = 0.0
    ended_at: float = 0.0
    error_at: float = 0.0
    last_at: float = 0.0
    longest_gap_s: float = 0.0
    failure: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def code(self) -> str:
        """The error's code, or the connection's error, or an empty text."""
        return str(self.error["code"]) if self.error else self.failure

    def take(self, data: dict[str, Any]) -> None:
        now = time.monotonic()
        if "error" in data:
            self.error, self.error_at = data["error"], now
            return
        piece = _text_of(data)
        if piece:
            self.first_at = self.first_at or now
            if self.last_at:
                self.longest_gap_s = max(self.longest_gap_s, now - self.last_at)
            self.last_at = now
            self.num_chunks += 1
            self.text += piece


def _text_of(data: dict[str, Any]) -> str:
    if "choices" not in data:
        return str(data.get("text", ""))
    choices = data["choices"]
    if not choices:
        return ""
    return str(choices[0].get("text") or choices[0].get("delta", {}).get("content") or "")


async def read_stream(
    port: int,
    request: dict[str, Any],
    *,
    answer: Answer | None = None,
    leave_after: int | None = None,
    leave_after_s: float | None = None,
    path: str = "/v1/completions",
    model_id: str = "0",
) -> Answer:
    """Read a stream to its end, or disconnect after a number of chunks or seconds."""
    found = answer or Answer()
    writer = None
    try:
        async with asyncio.timeout(leave_after_s):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            found.sent_at = time.monotonic()
            writer.write(_request(port, path, request, model_id))
            await _read_head(reader, found)
            await _read_body(reader, found, leave_after)
    except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
        found.failure = type(error).__name__
    finally:
        found.ended_at = time.monotonic()
        if writer is not None:
            if leave_after is not None or leave_after_s is not None:
                writer.transport.abort()  # RST instead of FIN
            writer.close()
    return found


def _request(port: int, path: str, request: dict[str, Any], model_id: str) -> bytes:
    data = json.dumps(request).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Model-Id: {model_id}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + data


async def _read_head(reader: asyncio.StreamReader, found: Answer) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    lines = head.split("\r\n")
    found.status = int(lines[0].split()[1])
    found.headers = {
        name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])
    }
    found.job_id = found.headers.get("x-job-id", "")


async def _read_body(reader: asyncio.StreamReader, found: Answer, leave_after: int | None) -> None:
    if "chunked" not in found.headers.get("transfer-encoding", ""):
        found.take(json.loads(await reader.read()))
        return
    rest = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        rest += (await reader.readexactly(size + 2))[:-2]
        *lines, rest = rest.split(b"\n")
        for line in lines:
            if line == b"data: [DONE]":
                found.is_done = True
            elif line.startswith(b"data: "):
                found.take(json.loads(line[6:]))
        if leave_after is not None and found.num_chunks >= leave_after:
            return


def read_all(port: int, requests: Sequence[dict[str, Any]], **options: Any) -> list[Answer]:
    """Read all streams concurrently to their ends."""

    async def everything() -> list[Answer]:
        return await asyncio.gather(*(read_stream(port, one, **options) for one in requests))

    return asyncio.run(everything())


class Stream:
    """A stream that is read in a separate thread."""

    def __init__(self, port: int, request: dict[str, Any], **options: Any) -> None:
        self.answer = Answer()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(read_stream(port, request, answer=self.answer, **options)),
            daemon=True,
        )
        self._thread.start()

    def wait_chunks(self, count: int, timeout_s: float = 30.0) -> None:
        def has_come() -> bool:
            ended = not self._thread.is_alive()
            assert not ended or self.answer.num_chunks >= count, self.answer
            return self.answer.num_chunks >= count

        wait_until(has_come, f"{count} chunks", timeout_s)

    def wait_text(self, length: int, timeout_s: float = 30.0) -> None:
        """Wait for ``length`` characters; on a busy machine a chunk may have many."""

        def has_come() -> bool:
            return len(self.answer.text) >= length or not self.is_open

        wait_until(has_come, f"{length} characters", timeout_s)

    def result(self, timeout_s: float = 60.0) -> Answer:
        """Wait for its end; fails after the time-out."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"hangs: {self.answer}"
        return self.answer

    @property
    def is_open(self) -> bool:
        return self._thread.is_alive()


def is_exact(answer: Answer, prompt_length: int, num_tokens: int) -> bool:
    """Whether the text is complete and in order, with a regular end."""
    return (
        answer.is_done
        and answer.error is None
        and answer.text == expected(prompt_length, num_tokens)
    )


@contextmanager
def timed() -> Iterator[Callable[[], float]]:
    """A function that returns the seconds since the block began."""
    start = time.monotonic()
    yield lambda: time.monotonic() - start


def retry(action: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """The first true result of ``action``; retries after transport errors."""
    import httpx

    def attempt() -> Any:
        with contextlib.suppress(httpx.TransportError):
            return action()
        return None

    return wait_until(attempt, "an answer", timeout_s)
