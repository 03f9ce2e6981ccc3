"""The one place where errors get their HTTP: status, OpenAI's error body, retry hint."""

from __future__ import annotations

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

from jobs.contract.errors import InvalidRequestError, JobError, ModelLoadError

INVALID = "invalid_request_error"
SERVER = "server_error"
_RETRY_AFTER_S = 1
_M = TypeVar("_M", bound=BaseModel)

Names = Mapping[str, str]
"""What workers and shared code call a parameter -> a dialect's name; the longer ones first."""
NO_NAMES: Names = MappingProxyType({})

# code -> (status, type); whatever is not here is our own fault: 500.
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
    "job_cancelled": (410, "cancelled_error"),
    "model_unloaded": (410, "cancelled_error"),
    "queue_full": (429, "rate_limit_error"),
    "too_many_jobs": (429, "rate_limit_error"),
    "not_ready": (503, "unavailable_error"),
    "shutting_down": (503, "unavailable_error"),
    "job_timeout": (503, "unavailable_error"),
    "storage_lost": (503, "unavailable_error"),
}
_STATUS_KINDS: dict[int, tuple[str, str]] = {
    400: (INVALID, "invalid_request"),
    404: ("not_found_error", "route_not_found"),
    405: (INVALID, "method_not_allowed"),
}
# Names that pydantic adds to an error's place for the members of a union.
_UNION_TAGS = frozenset({"str", "int", "float", "bool", "dict", "list", "none"})


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as a client sees it."""

    status: int
    type: str
    code: str
    message: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        """OpenAI's error object, plus ``detail`` as the original server had it."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return msgspec.json.encode({"error": error, "detail": self.message})

    def frame(self) -> bytes:
        """The same as an SSE event, for an answer that has begun."""
        return b"data: " + self.body() + b"\n\n"


class ProblemError(Exception):
    """An error that is known as a client sees it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def problem_of(error: Exception) -> Problem:
    """What a client is told about ``error``."""
    if isinstance(error, ProblemError):
        return error.problem
    if isinstance(error, ModelLoadError):
        return _failed_load(error)
    if isinstance(error, JobError):
        status, kind = _KINDS.get(error.code, (500, SERVER))
        return Problem(status, kind, error.code, error.message, error.param, _retry(status))
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
    """400 for the load that names a parameter at fault. Who else needs the model is told that it
    cannot be had; clients would ask again and again, but that another try helps is unlikely."""
    status, kind = (400, INVALID) if error.param else _KINDS[error.code]
    headers = {} if error.param else {"x-should-retry": "false"}
    return Problem(status, kind, error.code, error.message, error.param, headers)


def _retry(status: int) -> dict[str, str]:
    return {"Retry-After": str(_RETRY_AFTER_S)} if status in (429, 503) else {}


def checked(kind: type[_M], value: Any, *place: str | int) -> _M:
    """Validate a part of a body, ``place``, that is not validated with the body itself.

    Raises ``InvalidRequestError``, which names the wrong field.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        found = {**first, "loc": ("body", *place, *first["loc"])}
        raise InvalidRequestError(*describe_validation([found])) from None


def renamed(error: JobError, names: Names) -> JobError:
    """The error with the dialect's name of its parameter.

    A message is a reason, or ``name: reason``.
    """
    param = _rename(error.param or "", names)
    if param == (error.param or ""):
        return error
    name, colon, reason = error.message.partition(": ")
    return type(error)(_rename(name, names) + colon + reason, param)


def _rename(name: str, names: Names) -> str:
    """A field's place is kept, an index is not: the lists of two dialects differ."""
    for theirs, ours in names.items():
        rest = name.removeprefix(theirs)
        if rest != name and rest[:1] in ("", ".", "["):
            return ours if rest.startswith("[") else ours + rest
    return name


@contextmanager
def named_by(names: Names) -> Iterator[None]:
    """Errors of jobs get the dialect's names."""
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
