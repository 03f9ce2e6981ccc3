"""An error as Anthropic's clients know it. Pure."""

from __future__ import annotations

import msgspec

from api.web.errors import Problem

_PREFIX = "/v1/messages"
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    421: "permission_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_CODES = {"thread": "thread_unsupported_request"}
"""Parameter -> the code by which Anthropic's client knows how to go on without it."""


def is_anthropic(path: str) -> bool:
    """Whether the route with that path speaks Anthropic's language."""
    return path == _PREFIX or path.startswith(_PREFIX + "/")


def error_body(problem: Problem, job_id: str | None = None) -> bytes:
    """The body of an answer, or the data of an ``error`` event."""
    message, param = problem.message, problem.param
    if problem.code == "context_length_exceeded":
        # What agents look for to know that they have to shorten the conversation.
        message = f"prompt is too long: {message}"
    error = {
        "type": _kind(problem.status),
        "message": message,
        "details": {"error_code": _CODES.get(param or "", problem.code), "param": param},
    }
    return msgspec.json.encode({"type": "error", "error": error, "request_id": job_id})


def _kind(status: int) -> str:
    return _KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
