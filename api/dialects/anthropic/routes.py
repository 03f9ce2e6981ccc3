"""Anthropic's Messages API: /v1/messages and the count of its input's tokens."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from api.admin.jobs.waiting import accepted_job
from api.dialects.anthropic.answer import PING, Answer, MessageEncoder, whole_message
from api.dialects.anthropic.answer_schema import MESSAGE_ERRORS, MessageObject, MessageTokensCount
from api.dialects.anthropic.schema import MessagePromptBody, MessagesBody, ThinkingBody
from api.dialects.anthropic.translate import NAMES, to_job, to_prompt
from api.dialects.openai.generation.answer_schema import JobAccepted
from api.dialects.openai.generation.routes import ModelIdHeader
from api.dialects.openai.text.routes import text_body
from api.dialects.order_fields import order_of
from api.dialects.shared_fields import keep_alive_of
from api.execution.job_responses import StreamedAnswer, WholeAnswer
from api.execution.loosened_schemas import check_schemas
from api.execution.resolve import resolve_chat
from api.execution.runner import Ticket
from api.execution.services import Services, ServicesDep
from api.execution.shapes import Shape
from api.execution.submissions import is_background, new_ticket, service_tier
from api.web.errors import named_by
from jobs.contract.requests import GenerateRequest, TokenCountRequest, View

router = APIRouter(tags=["messages"])
_Body = TypeVar("_Body", bound=MessagePromptBody)
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
    202: {"model": JobAccepted},
    **MESSAGE_ERRORS,
}


@router.post("/v1/messages", response_model=MessageObject, responses=_ANSWERS)
async def create_message(
    body: MessagesBody, request: Request, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """The model's next turn; streamed as server-sent events with ``stream``."""
    in_background = is_background(request, body.background)
    ticket, job = await _prepare(body, services, x_model_id, in_background)
    if in_background:
        await services.runner.submit_ticket(ticket)
        return await accepted_job(services, ticket.job_id)
    answer = Answer(
        ticket.job_id,
        job.model,
        is_thinking_shown=job.view.is_thinking_shown,
        tier=service_tier(ticket.submission),
    )
    timeout_s = services.settings.answer_timeout_s
    if body.stream:
        encoder = MessageEncoder(answer)
        return StreamedAnswer(services.runner, ticket, timeout_s, encoder, lambda: PING, NAMES)
    return WholeAnswer(services.runner, ticket, timeout_s, partial(whole_message, answer), NAMES)


async def _prepare(
    body: MessagesBody, services: Services, x_model_id: str | None, in_background: bool
) -> tuple[Ticket, GenerateRequest]:
    """The job, under an id as Anthropic's messages have it."""
    desired, is_thinking = await resolve_chat(services, x_model_id, body.model)
    job = to_job(_with_thinking(body, is_thinking), desired.load.defaults, desired.load.model_name)
    with named_by(NAMES):
        check_schemas(services, job)
    is_shown = body.thinking is None or body.thinking.display != "omitted"
    job = msgspec.structs.replace(job, view=View(Shape.MESSAGE, is_thinking_shown=is_shown))
    ticket = new_ticket(
        services.runner, desired, job, is_background=in_background, order=order_of(body)
    )
    submission = replace(
        ticket.submission,
        keep_alive_s=keep_alive_of(body),
        job_id=f"msg_{services.runner.new_suffix()}",
    )
    return replace(ticket, submission=submission), job


@router.post(
    "/v1/messages/count_tokens", response_model=MessageTokensCount, responses=MESSAGE_ERRORS
)
async def count_tokens(
    body: MessagePromptBody, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """Number of tokens of what the model would read: system, tools, turns, template."""
    desired, is_thinking = await resolve_chat(services, x_model_id, body.model)
    prompt = to_prompt(_with_thinking(body, is_thinking), desired.load.model_name)
    request = TokenCountRequest(prompt, View(Shape.MESSAGE_TOKENS))
    ticket = new_ticket(services.runner, desired, request)
    timeout_s = services.settings.answer_timeout_s
    return WholeAnswer(services.runner, ticket, timeout_s, partial(text_body, request), NAMES)


def _with_thinking(body: _Body, is_on: bool | None) -> _Body:
    """The body with what its model's suffix says of thinking, if it says nothing of it itself."""
    if is_on is None or body.thinking is not None:
        return body
    thinking = ThinkingBody(type="adaptive" if is_on else "disabled")
    return body.model_copy(update={"thinking": thinking})
