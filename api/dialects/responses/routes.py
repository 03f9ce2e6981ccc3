"""OpenAI's Responses API: create, show, follow, cancel and delete responses; count their input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api.admin.jobs.waiting import place_headers
from api.dialects.generation_params import checked_text
from api.dialects.openai.generation.routes import ModelIdHeader
from api.dialects.openai.text.routes import text_body
from api.dialects.order_fields import order_of
from api.dialects.responses.answer import ResponseEncoder
from api.dialects.responses.items import to_items
from api.dialects.responses.library import Library, ResponseAnswer, whole_body
from api.dialects.responses.pages import page_of
from api.dialects.responses.record import to_record
from api.dialects.responses.schema import (
    DeletedResponse,
    InputTokens,
    ItemList,
    ResponseBody,
    ResponseObject,
    ResponsePromptBody,
)
from api.dialects.responses.translate import NAMES, to_job
from api.dialects.shared_fields import keep_alive_of
from api.execution.job_responses import StreamedAnswer, WholeAnswer
from api.execution.loosened_schemas import check_schemas
from api.execution.resolve import resolve_chat, with_thinking
from api.execution.runner import Ticket
from api.execution.services import Services, ServicesDep
from api.execution.shapes import Shape
from api.execution.submissions import is_background, new_ticket, service_tier
from api.web.error_schema import ERRORS
from api.web.errors import named_by
from api.web.event_stream import sse_response
from jobs.contract.errors import InvalidRequestError
from jobs.contract.requests import TokenCountRequest, View
from jobs.storage.stored_responses import StoredResponse

router = APIRouter(tags=["responses"])
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
    **ERRORS,
}


@router.post("/responses", include_in_schema=False)
@router.post("/v1/responses", response_model=ResponseObject, responses=_ANSWERS)
async def create_response(
    body: ResponseBody, request: Request, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """Answer an input; streamed with ``stream``, and read later with ``background``."""
    body = body.model_copy(update={"background": is_background(request, body.background)})
    if body.background and body.store is False:
        raise InvalidRequestError("background: true needs store: true", "background")
    library = Library(services)
    ticket, record = await _prepare(body, services, library, x_model_id)
    if body.background:
        await services.runner.submit_ticket(ticket)
        place = await place_headers(services, record.response_id)
        return await _in_background(body, library, record, place)
    return ResponseAnswer(_foreground(body, services, ticket, record), library, record)


async def _prepare(
    body: ResponseBody, services: Services, library: Library, x_model_id: str | None
) -> tuple[Ticket, StoredResponse]:
    """The job, under the response's id, and the record of the response."""
    runner = services.runner
    suffix = runner.new_suffix()
    items = await library.resolved(to_items(body.input, suffix))
    if body.previous_response_id:
        items = await library.context(body.previous_response_id) + items
    desired, is_thinking = await resolve_chat(services, x_model_id, body.model)
    body = with_thinking(body, is_thinking)
    job = to_job(body, items, desired.load.defaults, desired.load.model_name)
    with named_by(NAMES):
        check_schemas(services, job)
    job = msgspec.structs.replace(job, view=View(Shape.RESPONSE))
    order, in_background = order_of(body), bool(body.background)
    ticket = new_ticket(runner, desired, job, is_background=in_background, order=order)
    tier = service_tier(ticket.submission)
    record = to_record(f"resp_{suffix}", runner.created_s(), body, job, items, tier)
    record = msgspec.structs.replace(record, caller=services.caller.id)
    checked_text(record, body)
    keep_alive_s = keep_alive_of(body)
    submission = replace(ticket.submission, job_id=record.response_id, keep_alive_s=keep_alive_s)
    if record.echo["store"]:
        submission = library.shelf.with_record(submission, record)
    return replace(ticket, submission=submission), record


def _foreground(
    body: ResponseBody, services: Services, ticket: Ticket, record: StoredResponse
) -> Response:
    timeout_s = services.settings.answer_timeout_s
    if body.stream:
        encoder = ResponseEncoder(record)
        return StreamedAnswer(services.runner, ticket, timeout_s, encoder, encoder.ping, NAMES)
    return WholeAnswer(services.runner, ticket, timeout_s, partial(whole_body, record), NAMES)


async def _in_background(
    body: ResponseBody, library: Library, record: StoredResponse, place: Mapping[str, str]
) -> Response:
    if body.stream:
        answer: Response = sse_response(library.follow(record, -1), record.response_id)
    else:
        answer = _json(await library.show(record.response_id), record.response_id)
    answer.headers.update(place)
    return answer


@router.get("/v1/responses/{response_id}", response_model=ResponseObject, responses=_ANSWERS)
async def show_response(
    response_id: str,
    services: ServicesDep,
    stream: bool = False,
    starting_after: Annotated[int, Query(ge=-1)] = -1,
) -> Response:
    """A stored response; with ``stream`` its events numbered above ``starting_after``."""
    library = Library(services)
    if stream:
        record = await library.begin_to_follow(response_id)
        return sse_response(library.follow(record, starting_after), response_id)
    return _json(await library.show(response_id), response_id)


@router.delete("/v1/responses/{response_id}", responses=ERRORS)
async def delete_response(response_id: str, services: ServicesDep) -> DeletedResponse:
    """Forget a stored response; one that still runs is cancelled."""
    await Library(services).delete(response_id)
    return DeletedResponse(id=response_id)


@router.post("/v1/responses/{response_id}/cancel", response_model=ResponseObject, responses=ERRORS)
async def cancel_response(response_id: str, services: ServicesDep) -> Response:
    """Cancel a stored response; one that has ended stays as it is."""
    return _json(await Library(services).cancel(response_id), response_id)


@router.get("/v1/responses/{response_id}/input_items", responses=ERRORS)
async def list_input_items(
    response_id: str,
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> ItemList:
    """What a stored response was made from, with the responses before it."""
    record, _ = await Library(services).read(response_id)
    return page_of(record.items, limit=limit, is_newest_first=order == "desc", after=after)


@router.post("/v1/responses/input_tokens", response_model=InputTokens, responses=ERRORS)
@router.post("/responses/input_tokens", response_model=InputTokens, responses=ERRORS)
async def count_input_tokens(
    body: ResponsePromptBody, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> Response:
    """Number of tokens of what the model would read: input, instructions, tools, template.

    Without ``/v1`` it is the original server's route.
    """
    library = Library(services)
    items = await library.resolved(to_items(body.input, ""))
    if body.previous_response_id:
        items = await library.context(body.previous_response_id) + items
    desired, is_thinking = await resolve_chat(services, x_model_id, body.model)
    body = with_thinking(body, is_thinking)
    job = to_job(body, items, desired.load.defaults, desired.load.model_name)
    request = TokenCountRequest(job.prompts[0], View(Shape.INPUT_TOKENS))
    ticket = new_ticket(services.runner, desired, request)
    timeout_s = services.settings.answer_timeout_s
    return WholeAnswer(services.runner, ticket, timeout_s, partial(text_body, request), NAMES)


def _json(body: bytes, response_id: str) -> Response:
    return Response(body, headers={"X-Job-Id": response_id}, media_type="application/json")
