"""ollama's routes that run a model: /api/chat, /api/generate, /api/embed, /api/embeddings."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from api.dialects.ollama.answer_schema import (
    OLLAMA_ERRORS,
    OllamaChatAnswer,
    OllamaTextAnswer,
    OllamaVector,
    OllamaVectors,
)
from api.dialects.ollama.answers import CONTENT_TYPE, Answer, LineEncoder, nanoseconds
from api.dialects.ollama.residency import change_residency, load
from api.dialects.ollama.schema import (
    OllamaChatBody,
    OllamaEmbedBody,
    OllamaEmbeddingsBody,
    OllamaTextBody,
)
from api.dialects.ollama.translate import to_chat_job, to_embed_job, to_text_job
from api.dialects.openai.embeddings.vectors import embeddings_answer
from api.dialects.openai.generation.routes import ModelIdHeader
from api.execution.job_responses import StreamedAnswer, WholeAnswer
from api.execution.loosened_schemas import check_schemas
from api.execution.resolve import resolve, resolve_chat, with_thinking
from api.execution.runner import Ticket
from api.execution.services import Services, ServicesDep
from api.execution.shapes import Shape
from api.execution.submissions import new_ticket
from api.web.errors import NO_NAMES, Names, named_by
from jobs.contract.events import Event
from jobs.contract.requests import EmbedRequest, GenerateRequest

router = APIRouter(tags=["ollama"], responses=OLLAMA_ERRORS)
_LINES: dict[int | str, dict[str, Any]] = {
    200: {"content": {CONTENT_TYPE.decode(): {"schema": {"type": "string"}}}}
}
_OF_MESSAGES = {"prompt": "messages"}
_OF_A_PROMPT = {"messages": "prompt"}
_OF_ONE_TEXT = {"input": "prompt"}
_Show = Callable[[str, list[list[float]], int], dict[str, Any]]
_encode = msgspec.json.encode


@router.post("/api/chat", response_model=OllamaChatAnswer, responses=_LINES)
async def chat(
    body: OllamaChatBody, request: Request, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """Answer a chat, as lines of JSON unless ``stream`` is false; or load or unload the model."""
    if not body.messages:
        return await change_residency(Shape.OLLAMA_CHAT, body, request, services, x_model_id)
    desired, is_thinking = await resolve_chat(services, x_model_id, body.model)
    body = with_thinking(body, is_thinking)
    name = body.model or desired.load.model_name
    job = to_chat_job(body, desired.load.defaults, name)
    check_schemas(services, job)
    ticket = new_ticket(
        services.runner, desired, job, keep_alive_s=body.keep_alive_s, order=body.order
    )
    return _answer(services, ticket, job, _OF_MESSAGES)


@router.post("/api/generate", response_model=OllamaTextAnswer, responses=_LINES)
async def generate(
    body: OllamaTextBody, request: Request, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """Answer or continue a prompt, as lines unless ``stream`` is false; or load or unload."""
    if not body.prompt and not body.suffix:
        return await change_residency(Shape.OLLAMA_TEXT, body, request, services, x_model_id)
    desired, is_thinking = await resolve_chat(services, x_model_id, body.model)
    body = with_thinking(body, is_thinking)
    name = body.model or desired.load.model_name
    job = to_text_job(body, desired.load.defaults, name)
    check_schemas(services, job)
    ticket = new_ticket(
        services.runner, desired, job, keep_alive_s=body.keep_alive_s, order=body.order
    )
    return _answer(services, ticket, job, _OF_A_PROMPT)


@router.post("/api/embed", response_model=OllamaVectors)
async def embed(
    body: OllamaEmbedBody, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """One vector per text."""
    started = time.monotonic()

    def show(name: str, vectors: list[list[float]], num_tokens: int) -> dict[str, Any]:
        duration = nanoseconds(time.monotonic() - started)
        counts = {"total_duration": duration, "prompt_eval_count": num_tokens}
        return {"model": name, "embeddings": vectors, **counts}

    return await _embed(body, services, x_model_id, show)


@router.post("/api/embeddings", response_model=OllamaVector)
async def embeddings(
    body: OllamaEmbeddingsBody, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """The vector of one text."""
    one = OllamaEmbedBody(
        model=body.model, input=body.prompt, keep_alive=body.keep_alive, ttl=body.ttl
    )
    with named_by(_OF_ONE_TEXT):
        return await _embed(one, services, x_model_id, _show_one, _OF_ONE_TEXT)


async def _embed(
    body: OllamaEmbedBody,
    services: Services,
    x_model_id: str | None,
    show: _Show,
    names: Names = NO_NAMES,
) -> Response:
    desired = await resolve(services, x_model_id, body.model)
    name = body.model or desired.load.model_name
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not body.input or not texts:
        return load(services, desired, body, lambda _: _encode(show(name, [], 0)))
    job = to_embed_job(body, texts, name)
    ticket = new_ticket(
        services.runner, desired, job, keep_alive_s=body.keep_alive_s, order=body.order
    )
    assemble = partial(_vectors, job, show)
    timeout_s = services.settings.answer_timeout_s
    return WholeAnswer(services.runner, ticket, timeout_s, assemble, names)


def _vectors(job: EmbedRequest, show: _Show, events: list[Event]) -> bytes:
    found = embeddings_answer(job, events)
    vectors = [entry["embedding"] for entry in found["data"]]
    return _encode(show(job.model, vectors, found["usage"]["prompt_tokens"]))


def _show_one(_name: str, vectors: list[list[float]], _num_tokens: int) -> dict[str, Any]:
    return {"embedding": vectors[0] if vectors else []}


def _answer(services: Services, ticket: Ticket, job: GenerateRequest, names: Names) -> Response:
    runner, timeout_s = services.runner, services.settings.answer_timeout_s
    answer = Answer.of(job)
    if not job.stream:
        return WholeAnswer(runner, ticket, timeout_s, partial(_whole, answer), names)
    lines = LineEncoder(answer)
    return StreamedAnswer(runner, ticket, timeout_s, lines, lines.ping, names, CONTENT_TYPE)


def _whole(answer: Answer, events: list[Event]) -> bytes:
    return _encode(answer.whole(events))
