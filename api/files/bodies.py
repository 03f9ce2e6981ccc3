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


async def pieces_of(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body, in pieces of some 500 kB.

    Raises ``ProblemError`` (413, 408), and ``ClientDisconnect`` when the client has gone. Whoever
    stops to read calls ``drain_rest`` before the answer.
    """
    _refuse_announced(request, max_bytes)
    deadline = time.monotonic() + _BODY_TIMEOUT_S
    gathered, num_bytes, has_more = bytearray(), 0, True
    while has_more:
        piece, has_more = await _next(request, deadline)
        gathered += piece
        num_bytes += len(piece)
        if num_bytes > max_bytes:
            raise body_too_large(max_bytes)
        if len(gathered) >= _GATHERED_BYTES or not has_more:
            yield bytes(gathered)
            gathered.clear()


async def drain_rest(request: Request) -> None:
    """Read the rest of a refused body, within limits, so that the client reads the answer."""
    is_announced = "expect" in request.headers  # such a client sends nothing before it is asked to
    if not is_announced:
        await drain(request.receive)


def body_too_large(max_bytes: int) -> ProblemError:
    """The error about a body of more than ``max_bytes``."""
    message = f"the body is refused: more than {max_bytes} bytes"
    return refused(413, "body_too_large", message)


def refused(status: int, code: str, message: str, param: str | None = None) -> ProblemError:
    """An error after which the connection ends, since the rest of the body may follow."""
    return ProblemError(Problem(status, INVALID, code, message, param, {"Connection": "close"}))


async def _next(request: Request, deadline: float) -> tuple[bytes, bool]:
    try:
        async with awake_timeout(min(_PIECE_TIMEOUT_S, max(deadline - time.monotonic(), 0))):
            message = await request.receive()
    except TimeoutError:
        raise refused(408, "body_timeout", "the body did not arrive in time") from None
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


def _refuse_announced(request: Request, max_bytes: int) -> None:
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > max_bytes:
        raise body_too_large(max_bytes)
