"""POST /v1/completions and /v1/chat/completions."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Request
from starlette.responses import Response

from api.admin.jobs.waiting import accepted_job
from api.dialects.openai.generation.answer_schema import ChatCompletion, JobAccepted, TextCompletion
from api.dialects.openai.generation.answers import whole_answer
from api.dialects.openai.generation.chunks import ChunkEncoder
from api.dialects.openai.generation.schema import ChatBody, CompletionBody
from api.dialects.openai.generation.translate import to_generate_request
from api.execution.job_responses import StreamedAnswer, WholeAnswer
from api.execution.loosened_schemas import check_schemas
from api.execution.resolve import resolve_chat, with_thinking
from api.execution.services import Services, ServicesDep
from api.execution.submissions import is_background, new_ticket, service_tier
from api.web.error_schema import ERRORS
from jobs.contract.events import Event
from jobs.contract.requests import GenerateRequest

router = APIRouter(tags=["generation"])
ModelIdHeader = Annotated[str | None, Header(alias="X-Model-Id")]
_OF_MESSAGES = {"prompt": "messages"}
_OF_A_PROMPT = {"messages": "prompt"}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
    202: {"model": JobAccepted},
    **ERRORS,
}


@router.post("/chat/completions", include_in_schema=False)
@router.post("/v1/chat/completions", response_model=ChatCompletion, responses=_ANSWERS)
async def chat_completions(
    body: ChatBody, request: Request, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """Answer a chat; streamed as server-sent events with ``stream``."""
    return await _generate(body, request, services, x_model_id)


@router.post("/completions", include_in_schema=False)
@router.post("/v1/completions", response_model=TextCompletion | ChatCompletion, responses=_ANSWERS)
async def completions(
    body: CompletionBody, request: Request, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """Continue a text, or several; a chat with ``apply_chat_template`` or ``messages``."""
    return await _generate(body, request, services, x_model_id)


async def _generate(
    body: ChatBody | CompletionBody, request: Request, services: Services, x_model_id: str | None
) -> Response:
    runner = services.runner
    desired, is_thinking = await resolve_chat(services, x_model_id, body.model)
    body = with_thinking(body, is_thinking)
    job = to_generate_request(body, desired.load.defaults, desired.load.model_name)
    check_schemas(services, job)
    in_background = is_background(request, body.background)
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
    created = runner.created_s()
    timeout_s = services.settings.answer_timeout_s
    names = _OF_MESSAGES if body.messages else _OF_A_PROMPT
    tier = service_tier(ticket.submission)
    if job.stream:
        encoder = ChunkEncoder(ticket.job_id, created, job, tier)
        return StreamedAnswer(runner, ticket, timeout_s, encoder, names=names)
    assemble = partial(_body, ticket.job_id, created, job, tier)
    return WholeAnswer(runner, ticket, timeout_s, assemble, names)


def _body(job_id: str, created: int, job: GenerateRequest, tier: str, events: list[Event]) -> bytes:
    return msgspec.json.encode(whole_answer(job_id, created, job, events, tier))
