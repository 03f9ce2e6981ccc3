"""An error as Anthropic's clients know it. Pure."""

from __future__ import annotations

import re

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
_FIELDS = {
    "prompt": "messages",
    "max_completion_tokens": "max_tokens",
    "stop": "stop_sequences",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "response_format": "output_config.format",
    "reasoning_effort": "output_config.effort",
    "enable_thinking": "thinking",
    "thinking_budget": "thinking.budget_tokens",
}
"""A chat's name of a parameter -> its name here."""
_CODES = {"thread": "thread_unsupported_request"}
"""Parameter -> the code by which Anthropic's client knows how to go on without it."""


def is_anthropic(path: str) -> bool:
    """Whether the route with that path speaks Anthropic's language."""
    return path == _PREFIX or path.startswith(_PREFIX + "/")


def error_body(problem: Problem, job_id: str | None = None) -> bytes:
    """The body of an answer, or the data of an ``error`` event."""
    message, param = _renamed(problem.message, problem.param)
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


def _renamed(message: str, param: str | None) -> tuple[str, str | None]:
    """With the parameter's name here, in front of the message too."""
    name = re.match(r"\w*", param or "")
    ours = _FIELDS.get(name[0]) if name else None
    if name is None or param is None or ours is None:
        return message, param
    return re.sub(rf"^{name[0]}\b", ours, message), ours + param[name.end() :]
