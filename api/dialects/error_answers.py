"""Errors as answers, in the shape that a route's clients know: OpenAI's, or Anthropic's."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from api.dialects.anthropic.errors import error_body, is_anthropic
from api.web.errors import Problem, problem_of


def problem_response(
    problem: Problem, scope: Scope, extra_headers: Mapping[str, str] | None = None
) -> Response:
    """The answer to the request of that scope."""
    headers = {**problem.headers, **(extra_headers or {})}
    is_theirs = is_anthropic(scope["path"])
    body = error_body(problem, _job_id(scope)) if is_theirs else problem.body()
    return Response(body, problem.status, headers, media_type="application/json")


async def handle_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for every kind of error that is not a bug."""
    job_id = _job_id(request.scope)
    headers = {"X-Job-Id": job_id} if job_id else None
    return problem_response(problem_of(error), request.scope, headers)


def _job_id(scope: Scope) -> str | None:
    job_id: str | None = scope.get("state", {}).get("job_id")
    return job_id
