"""Reads a request's body, bounded in size and time, before the other middleware."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.dialects.error_answers import problem_response
from api.web.errors import INVALID, Problem
from jobs.platform.awake_time import awake_timeout

_READ_TIMEOUT_S = 29.0  # cut off within 30
# The rest of a too large body is read and discarded, so that the client reads the answer; at most:
_DRAIN_BYTES = 64 * 1024 * 1024
_DRAIN_S = 5.0


class _TooLargeError(Exception):
    pass


class BodyLimit:
    """ASGI middleware: 413 above ``max_bytes``, 408 for a body that does not arrive.

    ``is_streamed`` tells by method and path which routes read and limit their bodies themselves.
    """

    def __init__(
        self, app: ASGIApp, max_bytes: int, is_streamed: Callable[[str, str], bool]
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._is_streamed = is_streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"]) if scope["type"] == "http" else {}
        has_body = b"content-length" in headers or b"transfer-encoding" in headers
        if not has_body or self._is_streamed(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(headers, receive)
        except _TooLargeError:
            answer = _refused(scope, 413, "body_too_large", f"more than {self._max_bytes} bytes")
            await answer(scope, receive, send)
        except TimeoutError:
            answer = _refused(scope, 408, "body_timeout", "the body did not arrive in time")
            await answer(scope, receive, send)
        else:
            if body is not None:
                await self._app(scope, _replaying(body, receive), send)

    async def _read(self, headers: dict[bytes, bytes], receive: Receive) -> bytes | None:
        """The whole body; ``None`` when the client has disconnected before its end."""
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._max_bytes:
            if b"expect" not in headers:
                await drain(receive)
            raise _TooLargeError
        parts: list[bytes] = []
        size = 0
        async with awake_timeout(_READ_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > self._max_bytes:
                    break
                if not message.get("more_body", False):
                    return b"".join(parts)
        parts.clear()
        await drain(receive)
        raise _TooLargeError


def _refused(scope: Scope, status: int, code: str, reason: str) -> Response:
    problem = Problem(status, INVALID, code, f"the body is refused: {reason}")
    return problem_response(problem, scope, {"Connection": "close"})


async def drain(receive: Receive) -> None:
    """Read and discard the rest of a body, within limits."""
    num_bytes = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            while num_bytes < _DRAIN_BYTES:
                message = await receive()
                num_bytes += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


def _replaying(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that returns the body first, then the connection's messages."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
