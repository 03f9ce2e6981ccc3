"""Errors as answers, in the shape of the route: OpenAI's, Anthropic's or ollama's."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from api.dialects.anthropic import errors as anthropic
from api.dialects.ollama import errors as ollama
from api.web.errors import Problem, problem_of


def problem_response(
    problem: Problem, scope: Scope, extra_headers: Mapping[str, str] | None = None
) -> Response:
    """The answer to the request of that scope."""
    headers = {**problem.headers, **(extra_headers or {})}
    body = _body(problem, scope)
    return Response(body, problem.status, headers, media_type="application/json")


def _body(problem: Problem, scope: Scope) -> bytes:
    if anthropic.is_anthropic(scope["path"]):
        return anthropic.error_body(problem, _job_id(scope))
    if ollama.is_ollama(scope["path"]):
        return ollama.error_body(problem)
    return problem.body()


async def handle_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for every kind of error that is not a bug."""
    job_id = _job_id(request.scope)
    headers = {"X-Job-Id": job_id} if job_id else None
    return problem_response(problem_of(error), request.scope, headers)


def _job_id(scope: Scope) -> str | None:
    job_id: str | None = scope.get("state", {}).get("job_id")
    return job_id
