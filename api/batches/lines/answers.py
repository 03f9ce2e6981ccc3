"""What a line of the output says, and which answers are none: the line is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from api.batches.lines.app import RouteAnswer
from jobs.batches.journal import EndedLine, LineEnd, usage_of
from jobs.batches.records import BatchRecord

_LINE_BREAKS = (
    # Legal in JSON, but programs that split lines by Unicode's rules would cut the line there.
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
    (b"\xc2\x85", b"\\u0085"),
)
ON_HOLD = "on_hold"
"""What a batch waits for while its jobs wait on a queue that somebody holds."""
_LATER = frozenset(
    """
    job_not_found model_draining model_load_failed model_unloaded no_room not_ready queue_full
    shutting_down storage_lost storage_unavailable too_many_jobs key_limit
    """.split()
)
"""Codes of errors that say nothing about the line: it is tried again."""
_NEVER_RAN = {
    LineEnd.EXPIRED: (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    LineEnd.CANCELLED: ("batch_cancelled", "This request was cancelled with its batch."),
}


@dataclass(frozen=True, slots=True)
class Postponed:
    """A line that cannot be answered now, and why."""

    code: str
    message: str


class _ErrorText(msgspec.Struct):
    code: str | None = None
    error_code: str | None = None
    message: str = ""


class _ErrorBody(msgspec.Struct):
    error: _ErrorText


_error_decoder = msgspec.json.Decoder(_ErrorBody)


def postponed_of(answer: RouteAnswer) -> Postponed | None:
    """Why the line is to be tried again; ``None`` if that is its answer."""
    if answer.status < 400:
        return None
    code, message = _error_of(answer.body)
    return Postponed(code, message) if code in _LATER else None


def is_unknown_model(answer: RouteAnswer) -> bool:
    """Whether the line names a model that is not loaded, and was not loaded for it."""
    return answer.status >= 400 and _error_of(answer.body)[0] == "model_not_found"


def _error_of(body: bytes) -> tuple[str, str]:
    try:
        error = _error_decoder.decode(body).error
    except msgspec.DecodeError:
        return "", ""
    return error.code or error.error_code or "", error.message


def ended(record: BatchRecord, line: int, custom_id: str, answer: RouteAnswer) -> EndedLine:
    """The output's line for what a route has answered."""
    end = LineEnd.SUCCEEDED if answer.status < 400 else LineEnd.ERRORED
    if record.kind == "anthropic":
        key = "message" if end is LineEnd.SUCCEEDED else "error"
        result = {"type": end.name.lower(), key: msgspec.Raw(answer.body)}
        data = _encode({"custom_id": custom_id, "result": result})
    else:
        response = {
            "status_code": answer.status,
            "request_id": record.line_job(line),
            "body": msgspec.Raw(answer.body),
        }
        data = _encode(_openai_line(record, line, custom_id, response, None))
    return EndedLine(line, end, data, usage_of(data))


def never_ran(record: BatchRecord, line: int, custom_id: str, end: LineEnd) -> EndedLine:
    """The output's line for one that the batch's end has overtaken."""
    if record.kind == "anthropic":
        kind = "canceled" if end is LineEnd.CANCELLED else "expired"
        value: dict[str, Any] = {"custom_id": custom_id, "result": {"type": kind}}
    else:
        code, message = _NEVER_RAN[end]
        error = {"code": code, "message": message}
        value = _openai_line(record, line, custom_id, None, error)
    return EndedLine(line, end, _encode(value))


def _openai_line(
    record: BatchRecord,
    line: int,
    custom_id: str,
    response: dict[str, Any] | None,
    error: dict[str, str] | None,
) -> dict[str, Any]:
    return {
        "id": f"batch_req_{record.hex}_{line}",
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }


def _encode(value: dict[str, Any]) -> bytes:
    data = msgspec.json.encode(value)
    for raw, escaped in _LINE_BREAKS:
        if raw in data:
            data = data.replace(raw, escaped)
    return data
