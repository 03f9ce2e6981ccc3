"""Anthropic's Message Batches: create, list, show, cancel, delete, and read the results."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from api.dialects.anthropic.answer_schema import MESSAGE_ERRORS
from api.dialects.anthropic.batches.receiving import ENDPOINT, ReceivedRequests, receive_requests
from api.dialects.anthropic.batches.schema import (
    DeletedMessageBatch,
    MessageBatchList,
    MessageBatchObject,
)
from api.dialects.anthropic.batches.views import batch_object
from api.execution.services import Services, ServicesDep
from api.files.content import FileContent, ServedFile
from api.web.auth import CallerDep, ForBatches
from jobs.batches.errors import BatchStateError, no_batch
from jobs.batches.records import BatchRecord, LineCounts
from jobs.batches.store import PREFIXES, BatchStore, new_batch_id
from jobs.contract.errors import InvalidRequestError
from jobs.files.folder import disk_errors
from jobs.keys.caller import Caller

router = APIRouter(prefix="/v1/messages/batches", tags=["messages"], responses=MESSAGE_ERRORS)
_KIND: Literal["anthropic"] = "anthropic"
_WINDOW_S = 86400
_GONE = 499  # nobody reads it
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["requests"],
                    "properties": {
                        "requests": {
                            "type": "array",
                            "minItems": 1,
                            "items": {
                                "type": "object",
                                "required": ["custom_id", "params"],
                                "properties": {
                                    "custom_id": {"type": "string"},
                                    "params": {"type": "object"},
                                },
                            },
                        }
                    },
                }
            }
        },
    }
}
_RESULTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/x-jsonl": {"schema": {"type": "string"}}}},
}


@router.post("", response_model=MessageBatchObject, openapi_extra=_BODY, dependencies=[ForBatches])
async def create_batch(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """Answer up to 100 000 requests, within a day."""
    limit = services.settings.max_body_bytes
    try:
        received = await receive_requests(request, services.files, limit)
    except ClientDisconnect:
        return Response(status_code=_GONE)
    with contextlib.closing(received.input):
        record = await services.runner.in_thread(_create, services, caller, received)
    return Response(batch_object(record, request).model_dump_json(), media_type="application/json")


def _create(services: Services, caller: Caller, received: ReceivedRequests) -> BatchRecord:
    now = int(time.time())
    record = BatchRecord(
        id=new_batch_id(_KIND),
        kind=_KIND,
        endpoint=ENDPOINT,
        created_at=now,
        expires_at=now + _WINDOW_S,
        caller=caller.id,
        counts=LineCounts(received.num_lines),
    )

    def add_input(folder: Path) -> None:
        with disk_errors():
            os.replace(received.input.path, folder / "input.jsonl")

    received.input.sync()
    return _store(services).create(record, add_input)


@router.get("")
async def list_batches(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    after_id: str = "",
    before_id: str = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
) -> MessageBatchList:
    """The caller's batches, the newest first."""
    for name, value in (("after_id", after_id), ("before_id", before_id)):
        if value and not value.startswith(f"{PREFIXES[_KIND]}_"):
            raise InvalidRequestError(f"{name}: not the id of a batch", name)
    if after_id and before_id:
        raise InvalidRequestError("before_id: not together with after_id", "before_id")
    owner = None if caller.is_manager else caller.id
    records, has_more = await services.runner.in_thread(
        _store(services).page, owner, _KIND, after=after_id, before=before_id, limit=limit
    )
    return MessageBatchList(
        data=[batch_object(record, request) for record in records],
        first_id=records[0].id if records else None,
        last_id=records[-1].id if records else None,
        has_more=has_more,
    )


@router.get("/{batch_id}")
async def show_batch(
    batch_id: str, request: Request, services: ServicesDep, caller: CallerDep
) -> MessageBatchObject:
    """A batch: whether it has ended, and how its requests have."""
    return batch_object(await _batch_of(caller, services, batch_id), request)


@router.post("/{batch_id}/cancel")
async def cancel_batch(
    batch_id: str, request: Request, services: ServicesDep, caller: CallerDep
) -> MessageBatchObject:
    """Cancel what has not been answered. A batch that has ended stays as it is."""
    record = await _batch_of(caller, services, batch_id)
    try:
        record = await services.runner.in_thread(_store(services).cancel, batch_id)
    except BatchStateError:
        record = await services.runner.in_thread(_store(services).get, batch_id)
    return batch_object(record, request)


@router.delete("/{batch_id}")
async def delete_batch(
    batch_id: str, services: ServicesDep, caller: CallerDep
) -> DeletedMessageBatch:
    """Delete a batch that has ended, with its results."""
    record = await _batch_of(caller, services, batch_id)
    if not record.status.is_terminal:
        raise InvalidRequestError("the batch has not ended: cancel it first")
    await services.runner.in_thread(_forget, services, record)
    return DeletedMessageBatch(id=batch_id)


def _forget(services: Services, record: BatchRecord) -> None:
    store = _store(services)
    store.local_folder(record)
    store.forget(record)


@router.get("/{batch_id}/results", response_class=Response, responses=_RESULTS)
async def read_results(
    batch_id: str, request: Request, services: ServicesDep, caller: CallerDep
) -> Response:
    """The results of a batch that has ended, one per line."""
    record = await _batch_of(caller, services, batch_id)
    if not record.status.is_terminal:
        raise InvalidRequestError("the batch has not ended: it has no results yet")
    folder = await services.runner.in_thread(_store(services).local_folder, record)
    etag = f'"{batch_id}-{record.ended_at}"'
    try:
        size = os.stat(folder.results).st_size
        served = ServedFile(folder.results, size, etag, f"{batch_id}.jsonl", "application/x-jsonl")
        return FileContent(served, request.headers)
    except FileNotFoundError:
        raise no_batch(batch_id) from None  # deleted just now


async def _batch_of(caller: Caller, services: Services, batch_id: str) -> BatchRecord:
    record = await services.runner.in_thread(_store(services).get, batch_id)
    if record.kind != _KIND or not caller.may_see(record.caller):
        raise no_batch(batch_id)
    return record


def _store(services: Services) -> BatchStore:
    return BatchStore(services.settings, services.store.redis)
