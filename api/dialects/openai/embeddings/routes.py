"""POST /v1/embeddings."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from api.admin.jobs.waiting import accepted_job
from api.dialects.openai.embeddings.schema import EmbeddingsAnswer, EmbeddingsBody
from api.dialects.openai.embeddings.vectors import embeddings_answer
from api.dialects.openai.generation.answer_schema import JobAccepted
from api.dialects.openai.generation.routes import ModelIdHeader
from api.dialects.openai.generation.translate import to_embed_request
from api.execution.job_responses import WholeAnswer
from api.execution.resolve import resolve
from api.execution.services import ServicesDep
from api.execution.submissions import is_background, new_ticket
from api.web.error_schema import ERRORS
from jobs.contract.events import Event
from jobs.contract.requests import EmbedRequest

router = APIRouter(tags=["embeddings"])
_ANSWERS: dict[int | str, dict[str, Any]] = {202: {"model": JobAccepted}, **ERRORS}


@router.post("/embeddings", include_in_schema=False)
@router.post("/v1/embeddings", response_model=EmbeddingsAnswer, responses=_ANSWERS)
async def embeddings(
    body: EmbeddingsBody, request: Request, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """Vectors of one or several texts."""
    runner = services.runner
    desired = await resolve(services, x_model_id, body.model)
    job = to_embed_request(body, desired.load.model_name)
    in_background = is_background(request, None)
    ticket = new_ticket(
        runner,
        desired,
        job,
        is_background=in_background,
        keep_alive_s=body.keep_alive_s,
        order=body.order,
    )
    if in_background:
        await runner.submit_ticket(ticket)
        return await accepted_job(services, ticket.job_id)
    return WholeAnswer(runner, ticket, services.settings.answer_timeout_s, partial(_body, job))


def _body(job: EmbedRequest, events: list[Event]) -> bytes:
    return msgspec.json.encode(embeddings_answer(job, events))
