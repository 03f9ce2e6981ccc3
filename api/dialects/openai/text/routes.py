"""Tokens and texts of a loaded model: tokenize, detokenize, apply-template, and token counts.

llama-server's paths, which have no version, lead here too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from api.admin.models.schema import TokenCountAnswer
from api.dialects.openai.generation.routes import ModelIdHeader
from api.dialects.openai.generation.schema import TokenCountBody
from api.dialects.openai.generation.translate import to_token_count_request
from api.dialects.openai.text.schema import (
    ApplyTemplateBody,
    ContentAnswer,
    DetokenizeBody,
    PromptAnswer,
    TokenizeBody,
    TokensAnswer,
)
from api.dialects.openai.text.translate import (
    TextRequest,
    text_answer,
    to_apply_template_request,
    to_detokenize_request,
    to_tokenize_request,
)
from api.execution.job_responses import WholeAnswer
from api.execution.resolve import finder_of, resolve, with_thinking
from api.execution.services import Services, ServicesDep
from api.execution.shapes import Shape
from api.execution.submissions import new_ticket
from api.web.error_schema import ERRORS
from api.web.errors import NO_NAMES, Names
from jobs.contract.events import Event
from jobs.contract.requests import Request as AnyRequest
from jobs.contract.requests import View

router = APIRouter(tags=["text"], responses=ERRORS)
_Body = TypeVar("_Body", ApplyTemplateBody, TokenCountBody)


@router.post("/tokenize", include_in_schema=False)
@router.post("/v1/tokenize", response_model=TokensAnswer)
async def tokenize(
    body: TokenizeBody, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """Token ids of a text; with ``with_pieces`` each one's text too."""
    return await answer_text(services, to_tokenize_request(body), x_model_id, body.model)


@router.post("/detokenize", include_in_schema=False)
@router.post("/v1/detokenize", response_model=ContentAnswer)
async def detokenize(
    body: DetokenizeBody, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """The text of token ids, control tokens by their names."""
    return await answer_text(services, to_detokenize_request(body), x_model_id, body.model)


@router.post("/apply-template", include_in_schema=False)
@router.post("/v1/apply-template", response_model=PromptAnswer)
async def apply_template(
    body: ApplyTemplateBody, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """The text that the model's chat template makes of messages."""
    body = await _as_named(services, body)
    return await answer_text(services, to_apply_template_request(body), x_model_id, body.model)


@router.post("/v1/internal/token-count", response_model=TokenCountAnswer)
async def token_count(
    body: TokenCountBody, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """Number of tokens of a text, or of messages through the chat template."""
    body = await _as_named(services, body)
    return await answer_text(services, to_token_count_request(body), x_model_id, body.model)


@router.post("/chat/completions/input_tokens", include_in_schema=False)
@router.post("/v1/chat/completions/input_tokens", include_in_schema=False)
async def input_tokens(
    body: TokenCountBody, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """llama-server's token count."""
    job = to_token_count_request(await _as_named(services, body))
    job = msgspec.structs.replace(job, view=View(Shape.INPUT_TOKENS))
    return await answer_text(services, job, x_model_id, body.model)


async def _as_named(services: Services, body: _Body) -> _Body:
    """The body, thinking as the name of its model says."""
    return with_thinking(body, (await finder_of(services)).thinking_of(body.model))


async def answer_text(
    services: Services, job: TextRequest, x_model_id: str | None, model: str | None
) -> Response:
    """Run the job for the model meant, and answer with what it found."""
    return await answer_job(services, job, x_model_id, model, partial(text_body, job))


async def answer_job(
    services: Services,
    job: AnyRequest,
    x_model_id: str | None,
    model: str | None,
    show: Callable[[list[Event]], bytes],
    names: Names = NO_NAMES,
) -> Response:
    """Run any job for the model meant, and answer with what ``show`` makes of its events."""
    desired = await resolve(services, x_model_id, model)
    ticket = new_ticket(services.runner, desired, job)
    return WholeAnswer(services.runner, ticket, services.settings.answer_timeout_s, show, names)


def text_body(job: TextRequest, events: list[Event]) -> bytes:
    """The answer to who waits for the job."""
    return msgspec.json.encode(text_answer(job, events[-1]))
