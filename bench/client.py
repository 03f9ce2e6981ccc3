"""A client with little overhead: asyncio on plain sockets, one connection per request.

While streams run it only records data and times; ``bench/streams.py`` parses them afterwards.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from bench.measurement import BenchError
from bench.streams import Arrival, Stream, read_stream

HOST = "127.0.0.1"
_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Post:
    """A POST of a JSON body to a path of the server on ``port``."""

    port: int
    path: str
    body: Mapping[str, Any]

    def to_bytes(self, *, is_last: bool = True) -> bytes:
        """The HTTP request; ``is_last``: with ``Connection: close``."""
        body = msgspec.json.encode(self.body)
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {HOST}:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"Connection: {'close' if is_last else 'keep-alive'}\r\n\r\n"
        )
        return head.encode() + body


class Exchange(asyncio.Protocol):
    """One running request."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._transport: asyncio.Transport | None = None
        self._arrivals: list[Arrival] = []
        self._closed = asyncio.get_running_loop().create_future()
        self._started_at = time.perf_counter()
        self._ended_at = 0.0

    @classmethod
    async def start(cls, post: Post) -> Exchange:
        """Connect and send; the clock starts before the connect."""
        loop = asyncio.get_running_loop()
        try:
            _, exchange = await loop.create_connection(lambda: cls(post), HOST, post.port)
        except OSError as error:
            raise BenchError(f"no server on port {post.port}: {error}") from error
        return exchange

    @property
    def num_arrivals(self) -> int:
        """Number of reads with data: about one more than the pieces."""
        return len(self._arrivals)

    @property
    def is_done(self) -> bool:
        return self._closed.done()

    def abort(self) -> None:
        """Close the connection before the end of the answer."""
        if self._transport is not None:
            self._transport.abort()

    async def stream(self, timeout_s: float) -> Stream:
        """Wait until the server or ``abort`` has closed the connection; returns the answer."""
        try:
            await asyncio.wait_for(asyncio.shield(self._closed), timeout_s)
        except TimeoutError:
            self.abort()
            raise BenchError(f"{self._post.path}: no end after {timeout_s:.0f} s") from None
        return read_stream(self._started_at, self._ended_at, self._arrivals)

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._post.to_bytes())

    def data_received(self, data: bytes) -> None:
        self._arrivals.append((time.perf_counter(), data))

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended_at = time.perf_counter()
        if not self._closed.done():
            self._closed.set_result(None)


async def post_repeatedly(post: Post, count: int) -> None:
    """Send the same request ``count`` times over one connection, one after the other."""
    reader, writer = await asyncio.open_connection(HOST, post.port)
    request = post.to_bytes(is_last=False)
    try:
        for _ in range(count):
            writer.write(request)
            head = await reader.readuntil(_END_OF_HEAD)
            body = await reader.readexactly(_content_length(head))
            if b" 200 " not in head.partition(b"\r\n")[0]:
                raise BenchError(f"{post.path} answers {body[:300]!r}")
    finally:
        writer.close()


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    raise BenchError(f"an answer without a length: {head!r}")
