"""ollama's /api/pull and /api/delete, by the jobs and steps of /v1/internal/model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.responses import Response, StreamingResponse

from api.admin.models.pull_routes import delete as delete_model
from api.admin.models.pull_routes import finish_pull, start_pull
from api.admin.models.pull_schema import DeleteBody, PullBody
from api.dialects.ollama.answer_schema import OLLAMA_ERRORS, OllamaProgress
from api.dialects.ollama.answers import CONTENT_TYPE
from api.dialects.ollama.errors import error_body
from api.dialects.ollama.schema import OllamaNameBody, OllamaPullBody
from api.execution.runner import check
from api.execution.services import Services, ServicesDep
from api.web.auth import ForManagers
from api.web.errors import checked, problem_of
from jobs.contract.errors import JobError
from jobs.contract.events import EventKind

router = APIRouter(tags=["ollama"], responses=OLLAMA_ERRORS, dependencies=[ForManagers])
_LINES: dict[int | str, dict[str, Any]] = {
    200: {"content": {CONTENT_TYPE.decode(): {"schema": {"type": "string"}}}}
}
_SUCCESS = msgspec.json.encode({"status": "success"})


@router.post("/api/pull", response_model=OllamaProgress, responses=_LINES)
async def pull(body: OllamaPullBody, services: ServicesDep) -> Response:
    """Download a model; a client that leaves does not stop that."""
    job_id = await start_pull(services, checked(PullBody, {"model": body.model}))
    headers = {"X-Job-Id": job_id}
    if body.stream is False:
        await finish_pull(services, job_id)
        return Response(_SUCCESS, headers=headers, media_type="application/json")
    lines = _lines(services, job_id, body.model)
    return StreamingResponse(lines, headers=headers, media_type=CONTENT_TYPE.decode())


@router.delete("/api/delete", response_model_exclude_none=True)
async def delete(body: OllamaNameBody, services: ServicesDep) -> OllamaProgress:
    """Remove a model from the models folder."""
    await delete_model(checked(DeleteBody, {"model": body.model}), services)
    return OllamaProgress(status="success")


async def _lines(services: Services, job_id: str, model: str) -> AsyncIterator[bytes]:
    yield _line(status="pulling manifest")
    try:
        async with aclosing(services.runner.hub.replay(job_id)) as events:
            async for event in events:
                check(event)
                if event.kind is EventKind.PROGRESS:
                    what = f"pulling {event.file or model}"
                    sizes = {"total": event.total or 0, "completed": event.completed or 0}
                    yield _line(status=what, digest=model, **sizes)
    except JobError as error:
        yield error_body(problem_of(error)) + b"\n"
    else:
        yield _SUCCESS + b"\n"


def _line(**fields: str | int) -> bytes:
    return msgspec.json.encode(fields) + b"\n"
