"""llama-server's own routes: /completion, /infill, /slots and /props."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from api.dialects.llama_server.answers import NativeEncoder, NativeView
from api.dialects.llama_server.schema import (
    InfillBody,
    NativeCompletion,
    NativeCompletionBody,
    NativeProps,
    NativeSlot,
)
from api.dialects.llama_server.translate import to_native_request
from api.dialects.openai.generation.routes import ModelIdHeader
from api.execution.job_responses import StreamedAnswer, WholeAnswer
from api.execution.loosened_schemas import check_schemas
from api.execution.resolve import resolve, resolve_loaded
from api.execution.services import Services, ServicesDep
from api.execution.submissions import new_ticket
from api.web.error_schema import ERRORS
from jobs.contract.records import DesiredModel, WorkerStatus
from jobs.storage import names

router = APIRouter(tags=["llama-server"])
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
    **ERRORS,
}
_NAMES = {"messages": "prompt", "suffix": "input_suffix"}
_SHAPES = NativeCompletion | list[NativeCompletion]


@router.post("/completion", response_model=_SHAPES, responses=_ANSWERS)
async def completion(
    body: NativeCompletionBody, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """Continue a text, or several, in llama-server's words."""
    return await _answer(body, services, x_model_id)


@router.post("/infill", response_model=NativeCompletion, responses=_ANSWERS)
async def infill(
    body: InfillBody, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """Fill the gap in a text; 400 for a model without tokens for it."""
    return await _answer(body, services, x_model_id)


async def _answer(
    body: NativeCompletionBody | InfillBody, services: Services, x_model_id: str | None
) -> Response:
    runner, timeout_s = services.runner, services.settings.answer_timeout_s
    desired = await resolve(services, x_model_id, body.model)
    job = to_native_request(body, desired.load.defaults, desired.load.model_name)
    check_schemas(services, job)
    ticket = new_ticket(runner, desired, job, keep_alive_s=body.keep_alive_s, order=body.order)
    view = NativeView(job)
    if job.stream:
        return StreamedAnswer(runner, ticket, timeout_s, NativeEncoder(view), names=_NAMES)
    return WholeAnswer(runner, ticket, timeout_s, view.whole, _NAMES)


@router.get("/slots", responses=ERRORS)
async def slots(services: ServicesDep, x_model_id: ModelIdHeader = None) -> list[NativeSlot]:
    """The sequences that can run at once; as many as run are busy, as of the last second."""
    _, status = await _status(services, x_model_id)
    if status is None:
        return []
    return [
        NativeSlot(id=i, n_ctx=status.context_length, is_processing=i < status.sequences)
        for i in range(status.slots)
    ]


@router.get("/props", responses=ERRORS)
async def props(services: ServicesDep, x_model_id: ModelIdHeader = None) -> NativeProps:
    """The loaded model, its context and its slots."""
    desired, status = await _status(services, x_model_id)
    return NativeProps(
        default_generation_settings={"n_ctx": status.context_length if status else 0},
        total_slots=status.slots if status else 0,
        model_alias=desired.load.model_name,
        model_path=status.model_path if status else "",
    )


async def _status(
    services: Services, x_model_id: str | None
) -> tuple[DesiredModel, WorkerStatus | None]:
    desired = await resolve_loaded(services, x_model_id)
    slug = names.slug_of(desired.model_id)
    return desired, (await services.runner.in_thread(services.desired_models.statuses, [slug])).get(
        slug
    )
