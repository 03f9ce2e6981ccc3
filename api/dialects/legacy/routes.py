"""Routes that older clients know: see docs/older-clients.md for all that is kept, and what is not.

They are not in the description: whoever writes a client today has better ones.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
from fastapi import APIRouter, HTTPException
from starlette.responses import Response

from api.admin.jobs.processes import parameters
from api.admin.models.schema import Health
from api.dialects.generation_params import GenerationParams, build_request, checked_text
from api.dialects.legacy.schema import CacheLimitBody, DecodeBody, EncodeBody, LatestJob, LogitsBody
from api.dialects.openai.generation.logprobs import next_token_probabilities
from api.dialects.openai.generation.routes import ModelIdHeader
from api.dialects.openai.text.routes import answer_job, answer_text
from api.dialects.openai.text.schema import ApplyTemplateBody
from api.dialects.openai.text.translate import to_apply_template_request
from api.execution.resolve import finder_of, resolve, resolve_loaded, with_thinking
from api.execution.services import Services, ServicesDep
from api.execution.shapes import Shape
from api.web.auth import ForManagers
from jobs.catalog.catalog import list_adapters
from jobs.contract.errors import JobNotFoundError, UnsupportedParameterError
from jobs.contract.events import Event
from jobs.contract.records import JobRecord
from jobs.contract.requests import (
    CacheLimitRequest,
    DetokenizeRequest,
    GenerateRequest,
    GenerationDefaults,
    Prompt,
    Task,
    TokenizeRequest,
    View,
)
from jobs.storage import names

router = APIRouter(include_in_schema=False)
_ALL_AGES_S = -60.0  # clocks may differ
_encode = msgspec.json.encode


@router.get("/v1/internal/health")
async def health() -> Health:
    """The API answers."""
    return Health()


@router.post("/v1/internal/encode")
async def encode(
    body: EncodeBody, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """``{tokens, length}`` of a text, with what the model wants around one."""
    job = checked_text(TokenizeRequest(body.text, add_special=True), body)
    return await answer_text(services, job, x_model_id, None)


@router.post("/v1/internal/decode")
async def decode(
    body: DecodeBody, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """``{text}`` of tokens."""
    job = DetokenizeRequest(body.tokens, View(Shape.TEXT))
    return await answer_text(services, job, x_model_id, None)


@router.post("/v1/internal/chat-prompt")
async def chat_prompt(
    body: ApplyTemplateBody, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """``{prompt}`` of a chat."""
    is_thinking = (await finder_of(services)).thinking_of(body.model)
    job = to_apply_template_request(with_thinking(body, is_thinking))
    return await answer_text(services, job, x_model_id, body.model)


@router.post("/v1/internal/logits")
async def logits(
    body: LogitsBody, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """``{logits: {text of a token: its probability}}`` of what may follow a prompt."""
    if body.use_samplers:
        message = "use_samplers: only the model's own probabilities can be had"
        raise UnsupportedParameterError(message, "use_samplers")
    desired = await resolve(services, x_model_id, None)
    params = GenerationParams(
        prompts=[Prompt(text=body.prompt)],
        sampling={"temperature": 0.0},
        num_logprobs=body.top_logits,
        max_tokens=1,
        view=View(Shape.LOGITS),
    )
    job = build_request(params, GenerationDefaults(), desired.load.model_name)
    checked_text(job, body)
    return await answer_job(services, job, x_model_id, None, _show_logits, {"messages": "prompt"})


def _show_logits(events: list[Event]) -> bytes:
    return _encode({"logits": next_token_probabilities(events)})


@router.post("/v1/internal/stop-generation", dependencies=[ForManagers])
async def stop_generation(services: ServicesDep, x_model_id: ModelIdHeader = None) -> str:
    """End all generation jobs of the model, whoever's they are."""
    desired = await resolve_loaded(services, x_model_id)
    slug = names.slug_of(desired.model_id)
    await services.runner.in_thread(services.store.purge, slug, _ALL_AGES_S)
    return "OK"


@router.get("/v1/internal/lora/list")
async def lora_list(services: ServicesDep) -> dict[str, list[str]]:
    """The adapters folder."""
    entries = await services.runner.in_thread(list_adapters, services.settings.adapters_dir)
    return {"lora_names": [entry.name for entry in entries]}


@router.get("/v1/internal/model/cache_memory")
async def cache_memory(services: ServicesDep, x_model_id: ModelIdHeader = None) -> dict[str, int]:
    """Bytes that the model's process keeps allocated for reuse."""
    desired = await resolve_loaded(services, x_model_id)
    slug = names.slug_of(desired.model_id)
    statuses = await services.runner.in_thread(services.desired_models.statuses, [slug])
    return {"cache_memory_size": statuses[slug].cache_bytes if slug in statuses else 0}


@router.post("/v1/internal/model/cache_limit", dependencies=[ForManagers])
async def cache_limit(
    body: CacheLimitBody, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """How many bytes the model's process may keep so."""
    answer = _encode({"cache_limit": body.cache_limit})
    job = CacheLimitRequest(body.cache_limit)
    return await answer_job(services, job, x_model_id, None, lambda events: answer)


@router.get("/management/debug/latest", dependencies=[ForManagers])
async def latest(services: ServicesDep, x_model_id: ModelIdHeader = None) -> LatestJob:
    """The newest generation of the model, with its parameters."""
    desired = await resolve_loaded(services, x_model_id)
    return await services.runner.in_thread(_latest, services, desired.model_id)


def _latest(services: Services, model_id: str) -> LatestJob:
    def is_meant(record: JobRecord) -> bool:
        is_generation = record.task is Task.GENERATE and not record.is_deleted
        return record.model_id == model_id and is_generation

    records, _ = services.store.page(None, 1, is_meant)
    request = services.store.request(records[0].job_id) if records else None
    if not isinstance(request, GenerateRequest):
        raise JobNotFoundError("the model has generated nothing lately")
    params = parameters(request)
    return LatestJob(
        task_id=records[0].job_id,
        task_category="completions_stream" if request.stream else "completions",
        params=params,
        stream_generate={"model": request.model, "prompt": params["prompt"]},
    )


_NOT_HERE = {
    ("GET", "/v1/audio/transcriptions"): "transcription is not enabled",
    ("POST", "/v1/audio/transcriptions"): "transcription is not enabled",
    ("POST", "/kokoro/generate"): "speech is not enabled",
    ("POST", "/v1/internal/model/kv_cache/import"): "prompts are kept by the server itself",
    ("POST", "/v1/internal/lora/load"): "an adapter is named at load, or in a request",
    ("POST", "/v1/internal/lora/unload"): "an adapter is named at load, or in a request",
}


async def _refuse(reason: str) -> Any:
    raise HTTPException(400, reason)


for (method, path), reason in _NOT_HERE.items():
    router.add_api_route(path, partial(_refuse, reason), methods=[method])
