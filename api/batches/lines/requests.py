"""The bodies of lines as the routes get them, and what lines cannot ask for."""

from __future__ import annotations

from typing import Any

import msgspec

from api.batches.lines.app import RouteAnswer
from jobs.batches.input_file import InputFile, InputLine
from jobs.batches.records import MESSAGES

_RESPONSES = "/v1/responses"


class _Flags(msgspec.Struct):
    stream: Any = None
    background: Any = None


_flags_decoder = msgspec.json.Decoder(_Flags)


def read_line(source: InputFile, line: int) -> InputLine:
    """A line of a file that was checked, and perhaps changed since."""
    try:
        return source.read(line)
    except msgspec.DecodeError:
        return InputLine("", msgspec.Raw(b"{}"))


def refusal_of(request: InputLine, endpoint: str, max_bytes: int) -> RouteAnswer | None:
    """The answer to a line that asks for what lines cannot have."""
    if len(request.body) > max_bytes:
        message = f"the body is refused: more than {max_bytes} bytes"
        return error_answer(endpoint, 413, "body_too_large", message)
    try:
        flags = _flags_decoder.decode(request.body)
    except msgspec.DecodeError:
        return None  # the route names what is wrong
    name = "stream" if flags.stream else "background" if flags.background else None
    if name is None:
        return None
    message = f"{name}: lines of a batch cannot have it"
    return error_answer(endpoint, 400, "unsupported_parameter", message, name)


def error_answer(
    endpoint: str, status: int, code: str, message: str, param: str | None = None
) -> RouteAnswer:
    """An error in the shape of the endpoint."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    if endpoint == MESSAGES:
        kind = kind if status < 500 else "api_error"
        body: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": message}}
    else:
        body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return RouteAnswer(status, msgspec.json.encode(body))


def body_for(endpoint: str, body: msgspec.Raw) -> bytes:
    """The body of a line. Responses of lines are not stored: their place is the output file.

    Messages name the class of their job in their usage, so they are told it.
    """
    changes: dict[str, bool | str] = {}
    if endpoint == _RESPONSES:
        changes = {"store": False}
    elif endpoint == MESSAGES:
        changes = {"service_tier": "flex"}
    if not changes:
        return bytes(body)
    return msgspec.json.encode(msgspec.json.decode(body, type=dict[str, msgspec.Raw]) | changes)
