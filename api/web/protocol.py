"""uvicorn's connections with limits on the time and size of a request's head.

uvicorn has neither: it waits without end for the first head and for the rest of one that arrives
slowly, and buffers heads of any size. (``BodyLimit`` bounds the body, uvicorn's own
``timeout_keep_alive`` the time between two requests.)
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.web import peers
from api.web.errors import INVALID, Problem

HEAD_TIMEOUT_S = 9.0  # cut off within 10
_MAX_HEAD_BYTES = 64 * 1024


class _UnchunkedCycle(RequestResponseCycle):
    """A request of HTTP/1.0, without chunked encoding: closing the connection ends the answer."""

    _has_length = False

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message.get("headers", ())}
            self._has_length = b"content-length" in names
            if not self._has_length:
                self.chunked_encoding = False
                self.keep_alive = False
        elif not self._has_length:  # uvicorn subtracts what was sent from the expected length
            is_last = not message.get("more_body", False)
            self.expected_content_length = len(message.get("body", b"")) + (not is_last)
        await super().send(message)


class PatientProtocol(HttpToolsProtocol):
    """One connection. Its timer runs while it waits for a request's head."""

    _timer: asyncio.TimerHandle | None = None
    _is_in_head = False
    _num_head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not peers.IS_INHERITED:
            peers.watch_peer(transport.get_extra_info("socket"))
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing() or self._is_working:
            return self._stop_timer()
        if self._timer is None:  # Not restarted: each byte of a head would extend the time-out.
            self._start_timer()
        self._num_head_bytes += len(data)
        if self._is_in_head and self._num_head_bytes > _MAX_HEAD_BYTES:
            self._refuse(431, "head_too_large", f"the head has more than {_MAX_HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self._num_head_bytes = 0

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0":
            self.cycle.__class__ = _UnchunkedCycle

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """As uvicorn's, with this server's error body."""
        self._refuse(400, "invalid_http", msg)

    @property
    def _is_working(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        """Answer 408 if a head has begun; close the connection."""
        self._timer = None
        if self._is_in_head:
            message = f"the head of the request did not arrive within {HEAD_TIMEOUT_S:g} s"
            self._refuse(408, "head_timeout", message)
        self.transport.close()

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = Problem(status, INVALID, code, message).body()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
