"""Bodies that are too large to hold: read piece by piece, outside the limit of other bodies."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator

from starlette.requests import ClientDisconnect, Request

from api.web.body_limit import drain
from api.web.errors import INVALID, Problem, ProblemError
from jobs.platform.awake_time import awake_timeout

_STREAMED = re.compile(r"/v1/(files|uploads/[^/]+/parts|messages/batches)/?")
_PIECE_TIMEOUT_S = 30.0
_BODY_TIMEOUT_S = 3600.0
_GATHERED_BYTES = 512 * 1024


def is_streamed(method: str, path: str) -> bool:
    """Whether the route reads its body itself."""
    return method == "POST" and _STREAMED.fullmatch(path) is not None


class StreamedBody:
    """A body that is read piece by piece, up to ``max_bytes``."""

    def __init__(self, request: Request, max_bytes: int) -> None:
        self._request = request
        self._max_bytes = max_bytes
        self._is_over = False

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body, in pieces of some 500 kB.

        Raises ``ProblemError`` (413, 408), and ``ClientDisconnect`` when the client has gone.
        Whoever stops to read calls ``drain`` before the answer.
        """
        if self.announced_bytes > self._max_bytes:
            raise body_too_large(self._max_bytes)
        deadline = time.monotonic() + _BODY_TIMEOUT_S
        gathered, num_bytes = bytearray(), 0
        while not self._is_over:
            piece = await self._next(deadline)
            gathered += piece
            num_bytes += len(piece)
            if num_bytes > self._max_bytes:
                raise body_too_large(self._max_bytes)
            if len(gathered) >= _GATHERED_BYTES or self._is_over:
                yield bytes(gathered)
                gathered.clear()

    async def drain(self) -> None:
        """Read the rest of a refused body, within limits, so that the client reads the answer."""
        # A client that expects to be asked sends nothing before that.
        if not self._is_over and "expect" not in self._request.headers:
            await drain(self._request.receive)

    @property
    def announced_bytes(self) -> int:
        """The length that the request gives; 0 without one."""
        length = self._request.headers.get("content-length", "0")
        return int(length) if length.isdigit() and len(length) < 20 else 0

    async def _next(self, deadline: float) -> bytes:
        patience_s = min(_PIECE_TIMEOUT_S, max(deadline - time.monotonic(), 0))
        try:
            async with awake_timeout(patience_s):
                message = await self._request.receive()
        except TimeoutError:
            self._is_over = True  # for us
            raise refused(408, "body_timeout", "the body did not arrive in time") from None
        if message["type"] == "http.disconnect":
            self._is_over = True
            raise ClientDisconnect
        self._is_over = not message.get("more_body", False)
        body: bytes = message.get("body", b"")
        return body


def body_too_large(max_bytes: int) -> ProblemError:
    """The error about a body of more than ``max_bytes``."""
    message = f"the body is refused: more than {max_bytes} bytes"
    return refused(413, "body_too_large", message)


def refused(status: int, code: str, message: str, param: str | None = None) -> ProblemError:
    """An error after which the connection ends, since the rest of the body may follow."""
    return ProblemError(Problem(status, INVALID, code, message, param, {"Connection": "close"}))
