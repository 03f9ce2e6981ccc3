"""OpenAI's batches: create, list, show, cancel; and a retry of the lines that failed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query

from api.batches.retrying import retry_input
from api.batches.schema import (
    BatchAnswer,
    BatchBody,
    BatchList,
    RetryBody,
    batch_answer,
    window_s,
)
from api.execution.services import Services, ServicesDep
from api.web.auth import CallerDep, ForBatches
from api.web.error_schema import ERRORS
from jobs.batches.errors import no_batch
from jobs.batches.records import BatchRecord
from jobs.batches.store import BatchStore, is_batch_id, new_batch_id
from jobs.contract.errors import InvalidRequestError
from jobs.files.record import BATCH, FileRecord, no_file
from jobs.files.store import FileStore
from jobs.keys.caller import Caller

router = APIRouter(prefix="/v1/batches", tags=["batches"], responses=ERRORS)


@router.post("", dependencies=[ForBatches])
async def create_batch(body: BatchBody, services: ServicesDep, caller: CallerDep) -> BatchAnswer:
    """Answer the lines of an input file in the background."""
    record = await services.runner.in_thread(_create, services, caller, body)
    return batch_answer(record)


def _create(services: Services, caller: Caller, body: BatchBody) -> BatchRecord:
    _check_input(services.files, caller, body.input_file_id)
    now, output_expiry = int(time.time()), body.output_expires_after
    record = BatchRecord(
        id=new_batch_id(),
        endpoint=body.endpoint,
        created_at=now,
        expires_at=now + window_s(body.completion_window),
        caller=caller.id,
        input_file_id=body.input_file_id,
        completion_window=body.completion_window,
        metadata=body.metadata,
        output_ttl_s=output_expiry.seconds if output_expiry else None,
    )
    return _stored(services, record)


def _stored(services: Services, record: BatchRecord) -> BatchRecord:
    def add_input(folder: Path) -> None:
        services.files.link_into(record.input_file_id, folder, "input.jsonl")

    return _store(services).create(record, add_input)


def _check_input(files: FileStore, caller: Caller, file_id: str) -> FileRecord:
    """The input file of a batch. Another caller's is as one that does not exist."""
    found = files.record(file_id)
    if not caller.may_see(found.owner):
        raise no_file(file_id)
    if found.purpose != BATCH:
        message = f"input_file_id: the file has the purpose {found.purpose!r}, not {BATCH!r}"
        raise InvalidRequestError(message, "input_file_id")
    return found


@router.get("")
async def list_batches(
    services: ServicesDep,
    caller: CallerDep,
    after: str = "",
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> BatchList:
    """The caller's batches, newest first."""
    if after and not is_batch_id(after):
        raise InvalidRequestError("after: not the id of a batch", "after")
    owner = None if caller.is_manager else caller.id
    records, has_more = await services.runner.in_thread(
        _store(services).page, owner, "openai", after=after, limit=limit
    )
    data = [batch_answer(record) for record in records]
    return BatchList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=has_more,
    )


@router.get("/{batch_id}")
async def show_batch(batch_id: str, services: ServicesDep, caller: CallerDep) -> BatchAnswer:
    """A batch, and how far it is."""
    return batch_answer(await services.runner.in_thread(own_batch, services, caller, batch_id))


@router.post("/{batch_id}/cancel")
async def cancel_batch(batch_id: str, services: ServicesDep, caller: CallerDep) -> BatchAnswer:
    """Cancel a batch; what has been answered is kept."""
    await services.runner.in_thread(own_batch, services, caller, batch_id)
    return batch_answer(await services.runner.in_thread(_store(services).cancel, batch_id))


@router.post("/{batch_id}/retry", dependencies=[ForBatches])
async def retry_batch(
    batch_id: str, services: ServicesDep, caller: CallerDep, body: RetryBody | None = None
) -> BatchAnswer:
    """A new batch of the lines that did not succeed."""
    record = await services.runner.in_thread(
        _retry, services, caller, batch_id, body or RetryBody()
    )
    return batch_answer(record)


def _retry(services: Services, caller: Caller, batch_id: str, body: RetryBody) -> BatchRecord:
    old = own_batch(services, caller, batch_id)
    store = _store(services)
    file_id = retry_input(services.files, store.local_folder(old), old)
    now, window = int(time.time()), body.completion_window or old.completion_window
    record = BatchRecord(
        id=new_batch_id(),
        endpoint=old.endpoint,
        created_at=now,
        expires_at=now + window_s(window),
        caller=old.caller,
        input_file_id=file_id,
        completion_window=window,
        metadata=body.metadata if body.metadata is not None else old.metadata,
        output_ttl_s=old.output_ttl_s,
        retry_of=old.id,
    )
    return _stored(services, record)


def own_batch(services: Services, caller: Caller, batch_id: str) -> BatchRecord:
    """A batch of OpenAI's kind that the caller may see; ``BatchNotFoundError`` for any other."""
    record = _store(services).get(batch_id)
    if record.kind != "openai" or not caller.may_see(record.caller):
        raise no_batch(batch_id)
    return record


def _store(services: Services) -> BatchStore:
    return BatchStore(services.settings, services.store.redis)
