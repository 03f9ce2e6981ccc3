"""/v1/jobs: list, show, cancel, and the events of a job with replay."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from api.admin.jobs.filters import JobFilters, live_lines
from api.admin.jobs.schema import JobAnswer, JobList
from api.admin.jobs.views import job_answer, job_with_result, shown_record
from api.admin.jobs.waiting import WaitingView
from api.execution.services import Services, ServicesDep
from api.web.error_schema import ERRORS
from api.web.event_stream import EventStream, stream_events
from jobs.contract.errors import InvalidRequestError, JobError
from jobs.contract.events import BEFORE_ALL, EventId
from jobs.contract.records import JobClass, JobRecord
from jobs.contract.requests import Task
from jobs.keys.key_ring import KeyRing
from jobs.storage.event_log import last_event_id

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=ERRORS)
_CANCEL_WAIT_S = 2.0
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
    204: {"description": "The job has ended, and the given event was its last"},
}
StatusFilter = Literal["queued", "running", "finished", "failed", "cancelled"]


@router.get("")
async def list_jobs(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
    cursor: str | None = None,
    model: str | None = None,
    status: StatusFilter | None = None,
    job_class: Annotated[JobClass | None, Query(alias="class")] = None,
    batch: str | None = None,
    key: str | None = None,
) -> JobList:
    """The caller's jobs, for a manager all, newest first.

    ``model`` is a model_id, or a name or alias of loaded models, ``key`` the name of a key. The
    lines of a batch are shown with ``batch`` only, and while they wait or run.
    """
    filters = JobFilters(model, status, job_class, batch, key)
    accept = await filters.resolve(services)
    return await services.runner.in_thread(_page, services, filters, cursor, limit, accept)


def _page(
    services: Services,
    filters: JobFilters,
    cursor: str | None,
    limit: int,
    accept: Callable[[JobRecord], bool],
) -> JobList:
    store, before = services.store, _read_cursor(cursor)
    waiting, keys = WaitingView(store), KeyRing(services.settings)
    if filters.batch:
        records, upper = [one for one in live_lines(store, filters.batch) if accept(one)], None
    else:
        records, upper = store.page(before, limit, accept)
    return JobList(
        data=[job_answer(record, waiting, keys) for record in records],
        has_more=upper is not None,
        next_cursor=None if upper is None else repr(upper),
    )


def _read_cursor(cursor: str | None) -> float | None:
    if cursor is None:
        return None
    try:
        value = float(cursor)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidRequestError("the cursor is not one that this route has returned", "cursor")
    return value


@router.get("/{job_id}")
async def show_job(job_id: str, services: ServicesDep) -> JobAnswer:
    """One job; a finished one with its result, a failed one with its error."""
    return await services.runner.in_thread(job_with_result, services, job_id)


@router.delete("/{job_id}")
async def cancel_job(job_id: str, services: ServicesDep) -> JobAnswer:
    """Cancel a job, queued or running; one that has ended stays as it is."""
    runner = services.runner
    record = await runner.in_thread(shown_record, services.store, job_id, services.caller)
    if record.task in (Task.LOAD, Task.UNLOAD):
        raise InvalidRequestError("loads and unloads are not cancelled: unload instead", "job_id")
    record = await runner.in_thread(services.store.cancel, job_id, "cancelled by request")
    if not record.status.is_terminal:
        await _wait_for_end(services, job_id)
    return await runner.in_thread(job_with_result, services, job_id)


async def _wait_for_end(services: Services, job_id: str) -> None:
    """Wait briefly: a busy worker ends the job later; until then it has a ``cancel_reason``."""
    try:
        await services.runner.wait_existing(job_id, _CANCEL_WAIT_S)
    except JobError:
        return


@router.get("/{job_id}/events", response_class=EventStream, responses=_EVENTS)
async def job_events(
    job_id: str,
    services: ServicesDep,
    after: str | None = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """The job's events as server-sent events: those after the given one, then new ones."""
    start = _read_event_id(last_event_id or after)
    record, newest = await services.runner.in_thread(_state, services, job_id)
    if start > newest:
        raise InvalidRequestError("the job has no such event yet", "Last-Event-ID")
    if record.status.is_terminal and start == newest:
        return Response(status_code=204)  # so that an EventSource does not reconnect
    return stream_events(services.runner, job_id, start)


def _state(services: Services, job_id: str) -> tuple[JobRecord, EventId]:
    record = shown_record(services.store, job_id, services.caller)
    services.store.adopt(job_id, services.runner.name)
    return record, last_event_id(services.store.redis, job_id)


def _read_event_id(text: str | None) -> EventId:
    if not text:
        return BEFORE_ALL
    try:
        return EventId.parse(text)
    except ValueError:
        raise InvalidRequestError("an event id is <attempt>-<seq>", "Last-Event-ID") from None
