"""Repeats a job that has ended: the same request under a new id, in the background."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace

import msgspec

from api.execution.resolve import resolve
from api.execution.runner import Ticket
from api.execution.services import Services
from api.execution.shapes import Shape
from api.execution.submissions import Order, new_ticket, service_tier
from jobs.contract.errors import InvalidRequestError, JobConflictError, JobNotFoundError
from jobs.contract.records import JobRecord
from jobs.contract.requests import GenerateRequest, Request, Task
from jobs.storage.stored_responses import ResponseStore
from jobs.storage.submitter import Submission

_NOT_REPEATED = {Task.LOAD: "load it again", Task.UNLOAD: "unload it", Task.PULL: "pull it again"}
_ID_PREFIXES = {Shape.RESPONSE: "resp", Shape.MESSAGE: "msg"}


async def repeat(services: Services, record: JobRecord) -> Submission:
    """Submit the job again. Raises ``JobConflictError`` if it cannot be repeated (any more)."""
    _check(record)
    request = await services.runner.in_thread(_request, services, record)
    header = record.model_id.encode().decode("latin-1")  # as a header comes
    desired = await resolve(services, header, None)
    order = Order(record.job_class, record.priority)
    ticket = new_ticket(services.runner, desired, request, is_background=True, order=order)
    submission = replace(ticket.submission, retry_of=record.job_id)
    submission = await _as_shown(services, record, request, submission)
    await services.runner.submit_ticket(Ticket(submission, desired))
    return submission


def _check(record: JobRecord) -> None:
    if record.task in _NOT_REPEATED:
        raise InvalidRequestError(f"job_id: {_NOT_REPEATED[record.task]} instead", "job_id")
    if record.batch:
        message = f"job_id: a line of {record.batch}, whose failed lines are retried together"
        raise JobConflictError(message, "job_id")
    if not record.status.is_terminal:
        raise JobConflictError(f"job_id: the job has not ended, it is {record.status}", "job_id")


def _request(services: Services, record: JobRecord) -> Request:
    try:
        return services.store.request(record.job_id)
    except JobNotFoundError:
        raise JobConflictError("job_id: its request is no longer stored", "job_id") from None


async def _as_shown(
    services: Services, record: JobRecord, request: Request, submission: Submission
) -> Submission:
    """The submission with an id as its dialect has it, and with the record of a response."""
    shape = request.view.shape if isinstance(request, GenerateRequest) else ""
    prefix = next((name for one, name in _ID_PREFIXES.items() if one == shape), None)
    if prefix is None:
        return submission
    submission = replace(submission, job_id=f"{prefix}_{secrets.token_hex(16)}")
    if shape != Shape.RESPONSE:
        return submission
    shelf = ResponseStore(services.redis, services.settings.response_ttl_s)
    try:
        stored, _ = await shelf.read(record.job_id)
    except JobNotFoundError:
        raise JobConflictError("job_id: its response is no longer stored", "job_id") from None
    stored = msgspec.structs.replace(
        stored,
        response_id=submission.job_id,
        created_at=int(time.time()),
        echo=stored.echo | {"background": True, "service_tier": service_tier(submission)},
        is_background=True,
        caller=services.caller.id,
    )
    return shelf.with_record(submission, stored)
