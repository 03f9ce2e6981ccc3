"""Maps errors to HTTP: status, OpenAI's error body, ``Retry-After``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException

from jobs.contract.errors import InvalidRequestError, JobError, KeyLimitError, ModelLoadError

INVALID = "invalid_request_error"
SERVER = "server_error"
_RETRY_AFTER_S = 1
_NO_RETRY = {"x-should-retry": "false"}
"""For OpenAI's clients, which else repeat: what was too late is not done by being late again."""
_M = TypeVar("_M", bound=BaseModel)

Names = Mapping[str, str]
"""Parameter name of workers and shared code -> the dialect's name; longer names first."""
NO_NAMES: Names = MappingProxyType({})

# code -> (status, type); any other code is an internal error: 500.
_KINDS: dict[str, tuple[int, str]] = {
    "invalid_request": (400, INVALID),
    "unsupported_parameter": (400, INVALID),
    "context_length_exceeded": (400, INVALID),
    "grammar_failed": (400, INVALID),
    "model_load_failed": (503, "unavailable_error"),
    "model_not_found": (404, "not_found_error"),
    "adapter_not_found": (404, "not_found_error"),
    "job_not_found": (404, "not_found_error"),
    "model_id_in_use": (409, "conflict_error"),
    "model_busy": (409, "conflict_error"),
    "job_conflict": (409, "conflict_error"),
    "batch_not_found": (404, "not_found_error"),
    "batch_not_changeable": (409, "conflict_error"),
    "job_cancelled": (410, "cancelled_error"),
    "model_unloaded": (410, "cancelled_error"),
    "pull_failed": (502, "upstream_error"),
    "repo_not_found": (404, "not_found_error"),
    "repo_access_denied": (403, "permission_error"),
    "hub_unreachable": (503, "unavailable_error"),
    "hub_rate_limited": (429, "rate_limit_error"),
    "repo_changed": (503, "unavailable_error"),
    "file_corrupt": (502, "upstream_error"),
    "disk_full": (507, "insufficient_storage_error"),
    "file_not_found": (404, "not_found_error"),
    "file_elsewhere": (503, "unavailable_error"),
    "file_too_large": (413, INVALID),
    "files_full": (507, "insufficient_storage_error"),
    "queue_full": (429, "rate_limit_error"),
    "too_many_jobs": (429, "rate_limit_error"),
    "key_limit": (429, "rate_limit_error"),
    "rate_limit_exceeded": (429, "rate_limit_error"),
    "key_not_allowed": (403, "permission_error"),
    "insufficient_memory": (507, "insufficient_memory_error"),
    "no_room": (503, "unavailable_error"),
    "not_ready": (503, "unavailable_error"),
    "model_draining": (503, "unavailable_error"),
    "shutting_down": (503, "unavailable_error"),
    "job_timeout": (503, "unavailable_error"),
    "storage_lost": (503, "unavailable_error"),
}
_STATUS_KINDS: dict[int, tuple[str, str]] = {
    400: (INVALID, "invalid_request"),
    404: ("not_found_error", "route_not_found"),
    405: (INVALID, "method_not_allowed"),
}
# Names that pydantic adds to an error's location for the members of a union.
_UNION_TAGS = frozenset({"str", "int", "float", "bool", "dict", "list", "none"})


def codes_of(*statuses: int) -> tuple[str, ...]:
    """The codes of errors that are answered with one of these statuses."""
    return tuple(code for code, (status, _) in _KINDS.items() if status in statuses)


@dataclass(frozen=True, slots=True)
class Problem:
    """An error response: its status, OpenAI's fields, headers."""

    status: int
    type: str
    code: str
    message: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        """OpenAI's error object, and ``detail`` as in the original server."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return msgspec.json.encode({"error": error, "detail": self.message})

    def frame(self) -> bytes:
        """The same as an SSE event, for a stream that has begun."""
        return b"data: " + self.body() + b"\n\n"


class ProblemError(Exception):
    """An exception with a complete error response."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def problem_of(error: Exception) -> Problem:
    """The error response for ``error``."""
    if isinstance(error, ProblemError):
        return error.problem
    if isinstance(error, ModelLoadError):
        return _failed_load(error)
    if isinstance(error, JobError):
        status, kind = _KINDS.get(error.code, (500, SERVER))
        headers = _headers(error, status)
        return Problem(status, kind, error.code, error.message, error.param, headers)
    if isinstance(error, RedisError):
        message = "the job queue cannot be reached at the moment"
        return Problem(503, "unavailable_error", "storage_unavailable", message, None, _retry(503))
    if isinstance(error, RequestValidationError):
        message, param = describe_validation(error.errors())
        return Problem(400, INVALID, "invalid_request", message, param)
    if isinstance(error, HTTPException):
        kind, code = _STATUS_KINDS.get(error.status_code, (SERVER, "http_error"))
        return Problem(
            error.status_code, kind, code, str(error.detail), None, dict(error.headers or {})
        )
    return Problem(500, SERVER, "internal_error", HTTPStatus(500).phrase)


def _failed_load(error: ModelLoadError) -> Problem:
    """400 if a parameter of the load is wrong. Else 503 for all requests to the model, with a
    header that stops OpenAI's clients from retrying: another try is unlikely to succeed."""
    status, kind = (400, INVALID) if error.param else _KINDS[error.code]
    headers = {} if error.param else {"x-should-retry": "false"}
    return Problem(status, kind, error.code, error.message, error.param, headers)


def _headers(error: JobError, status: int) -> dict[str, str]:
    if isinstance(error, KeyLimitError):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
    return _retry(status) if error.param != "deadline_s" else _NO_RETRY


def _retry(status: int) -> dict[str, str]:
    """Headers for clients that repeat requests. OpenAI's repeat every status from 500 on."""
    if status == HTTPStatus.INSUFFICIENT_STORAGE:
        return _NO_RETRY
    return {"Retry-After": str(_RETRY_AFTER_S)} if status in (429, 503) else {}


def checked(kind: type[_M], value: Any, *place: str | int) -> _M:
    """Validate a part of a body, at ``place``, that is not validated with the body itself.

    Raises ``InvalidRequestError`` with the name of the wrong field.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        found = {**first, "loc": ("body", *place, *first["loc"])}
        raise InvalidRequestError(*describe_validation([found])) from None


def renamed(error: JobError, names: Names) -> JobError:
    """The error with the dialect's name of its parameter, also at the start of its message."""
    param = _rename(error.param or "", names)
    if param == (error.param or ""):
        return error
    name, colon, reason = error.message.partition(": ")
    return type(error)(_rename(name, names) + colon + reason, param)


def _rename(name: str, names: Names) -> str:
    """Names of subfields are kept, indexes are not: the lists of two dialects differ."""
    for shared_name, dialect_name in names.items():
        rest = name.removeprefix(shared_name)
        if rest != name and rest[:1] in ("", ".", "["):
            return dialect_name if rest.startswith("[") else dialect_name + rest
    return name


@contextmanager
def named_by(names: Names) -> Iterator[None]:
    """Within the block, raised job errors get the dialect's names."""
    try:
        yield
    except JobError as error:
        raise renamed(error, names) from None


def describe_validation(errors: Sequence[Mapping[str, Any]]) -> tuple[str, str | None]:
    """Message and parameter of the first of pydantic's errors."""
    first = errors[0]
    param = _param_of(first["loc"])
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "")
        return f"the body is not valid JSON: {reason}", None
    message = str(first["msg"]).removeprefix("Value error, ")
    if param is None:
        return f"the body is missing or not a JSON object: {message}", None
    return f"{param}: {message}", param


def _param_of(place: Sequence[str | int]) -> str | None:
    """``("body", "messages", 0, "content")`` as ``messages[0].content``."""
    name = ""
    for part in place[1:]:
        if isinstance(part, int):
            name += f"[{part}]" if name else ""
        elif part.replace("-", "_").isidentifier() and part not in _UNION_TAGS:
            name += f".{part}" if name else part
    return name or None


HANDLED: tuple[type[Exception], ...] = (
    ProblemError,
    JobError,
    RedisError,
    RequestValidationError,
    HTTPException,
    Exception,
)
