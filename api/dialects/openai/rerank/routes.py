"""POST /v1/rerank."""

from __future__ import annotations

from functools import partial

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from api.dialects.openai.embeddings.vectors import embeddings_answer
from api.dialects.openai.generation.routes import ModelIdHeader
from api.dialects.openai.rerank.ranking import to_rerank_request
from api.dialects.openai.rerank.schema import RankedText, RerankAnswer, RerankBody
from api.execution.job_responses import WholeAnswer
from api.execution.resolve import resolve
from api.execution.services import ServicesDep
from api.execution.submissions import new_ticket
from api.web.error_schema import ERRORS
from jobs.contract.events import Event
from jobs.contract.requests import EmbedRequest

router = APIRouter(tags=["embeddings"], responses=ERRORS)


@router.post("/rerank", include_in_schema=False)
@router.post("/reranking", include_in_schema=False)
@router.post("/v1/reranking", include_in_schema=False)
@router.post("/v1/rerank", response_model=RerankAnswer | list[RankedText])
async def rerank(
    body: RerankBody, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """Documents in the order of their likeness to a query, by the loaded model's vectors."""
    runner = services.runner
    desired = await resolve(services, x_model_id, body.model)
    job = to_rerank_request(body, desired.load.model_name)
    ticket = new_ticket(runner, desired, job, order=body.order)
    return WholeAnswer(runner, ticket, services.settings.answer_timeout_s, partial(_body, job))


def _body(job: EmbedRequest, events: list[Event]) -> bytes:
    return msgspec.json.encode(embeddings_answer(job, events))
