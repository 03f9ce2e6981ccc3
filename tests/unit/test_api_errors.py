"""Errors to HTTP: every code has its status, every body one shape."""

from __future__ import annotations

import json

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from starlette.exceptions import HTTPException

import jobs.batches.errors  # registers its errors, as the next one does
import jobs.files.record  # noqa: F401
from api.web.errors import describe_validation, problem_of
from jobs.contract.errors import ErrorInfo, JobError, ModelLoadError

STATUS = {
    "invalid_request": 400,
    "unsupported_parameter": 400,
    "context_length_exceeded": 400,
    "grammar_failed": 400,
    "insufficient_memory": 507,
    "no_room": 503,
    "model_load_failed": 400,  # with a parameter at fault
    "model_not_found": 404,
    "adapter_not_found": 404,
    "job_not_found": 404,
    "storage_lost": 503,
    "batch_not_found": 404,
    "batch_not_changeable": 409,
    "file_not_found": 404,
    "file_elsewhere": 503,
    "file_too_large": 413,
    "files_full": 507,
    "model_id_in_use": 409,
    "model_busy": 409,
    "key_limit": 429,
    "rate_limit_exceeded": 429,
    "key_not_allowed": 403,
    "job_conflict": 409,
    "model_draining": 503,
    "job_cancelled": 410,
    "model_unloaded": 410,
    "pull_failed": 502,
    "repo_not_found": 404,
    "repo_access_denied": 403,
    "hub_unreachable": 503,
    "hub_rate_limited": 429,
    "repo_changed": 503,
    "file_corrupt": 502,
    "disk_full": 507,
    "queue_full": 429,
    "too_many_jobs": 429,
    "not_ready": 503,
    "shutting_down": 503,
    "job_timeout": 503,
    "worker_lost": 500,
    "engine_error": 500,
    "bad_contract": 500,
    "internal_error": 500,
}


@pytest.mark.parametrize("code", sorted({*JobError.registry, "internal_error"}))
def test_every_code_has_its_status(code: str) -> None:
    problem = problem_of(JobError.from_info(ErrorInfo(code, "why", "here")))
    assert problem.status == STATUS[code]
    assert problem.code == code
    assert ("Retry-After" in problem.headers) == (problem.status in (429, 503))
    assert json.loads(problem.body()) == {
        "error": {"message": "why", "type": problem.type, "param": "here", "code": code},
        "detail": "why",
    }


def test_a_failed_load_without_a_parameter_at_fault_is_not_to_be_tried_again() -> None:
    problem = problem_of(ModelLoadError("no room for the weights"))
    assert (problem.status, problem.type) == (503, "unavailable_error")
    assert problem.headers == {"x-should-retry": "false"}
    assert "x-should-retry" not in problem_of(ModelLoadError("no", "llm_model_name")).headers


@pytest.mark.parametrize("error", [RedisConnectionError("x"), RedisTimeoutError("x")])
def test_a_storage_that_is_away_is_a_503_to_try_again(error: Exception) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.headers["Retry-After"]) == (503, "1")
    assert "x" not in problem.message


def test_a_bug_says_nothing_of_itself() -> None:
    problem = problem_of(ValueError("secret"))
    assert (problem.status, problem.message) == (500, "Internal Server Error")


def test_routes_keep_the_status_and_headers_of_the_framework() -> None:
    problem = problem_of(HTTPException(405, headers={"Allow": "POST"}))
    assert (problem.status, problem.headers["Allow"]) == (405, "POST")


def test_a_frame_is_one_event() -> None:
    frame = problem_of(JobError("a\nb")).frame()
    assert frame.startswith(b'data: {"error":')
    assert frame.count(b"\n") == 2


@pytest.mark.parametrize(
    ("place", "param"),
    [
        (("body", "temperature"), "temperature"),
        (("body", "messages", 0, "content", "str"), "messages[0].content"),
        (("body", "messages", 3, "tool_calls", 0, "id"), "messages[3].tool_calls[0].id"),
        (("query", "limit"), "limit"),
        (("header", "X-Model-Id"), "X-Model-Id"),
        (("body",), None),
    ],
)  # fmt: skip
def test_the_parameter_is_named_as_a_path(place: tuple[str | int, ...], param: str | None) -> None:
    _, found = describe_validation([{"loc": place, "msg": "no", "type": "x"}])
    assert found == param
