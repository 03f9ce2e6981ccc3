"""Whose files a request may use, and what a new file is called and how long it is kept."""

from __future__ import annotations

import time

from api.execution.services import Services
from api.files.schema import MAX_EXPIRY_S, ExpiresAfter, FileAnswer, Purpose
from jobs.contract.errors import InvalidRequestError
from jobs.files.record import BATCH, FileRecord, no_file
from jobs.keys.caller import Caller

_MAX_NAME_CHARS = 255


async def file_of(caller: Caller, services: Services, file_id: str) -> FileRecord:
    """The record of a file that the caller may see; another's does not exist for it."""
    record: FileRecord = await services.runner.in_thread(services.files.record, file_id)
    if not caller.may_see(record.owner):
        raise no_file(file_id)
    return record


def checked_name(given: str, purpose: Purpose, field: str = "file") -> str:
    """The file's name without folders. Raises ``InvalidRequestError``."""
    name = "".join(char for char in given if char.isprintable()).replace("\\", "/")
    name = name.rpartition("/")[2][:_MAX_NAME_CHARS] or "upload"
    if purpose == BATCH and not name.lower().endswith(".jsonl"):
        message = f"{field}: invalid file format for batches: {name!r}. Must be .jsonl"
        raise InvalidRequestError(message, field)
    return name


def expiry_of(purpose: str, after: ExpiresAfter | None) -> float | None:
    """When a file made now expires: those of batches do."""
    if after is not None:
        return time.time() + after.seconds
    return time.time() + MAX_EXPIRY_S if purpose == BATCH else None


def file_answer(record: FileRecord) -> FileAnswer:
    """The record as clients know it."""
    return FileAnswer(
        id=record.id,
        bytes=record.bytes,
        created_at=int(record.created_at),
        filename=record.filename,
        purpose=record.purpose,
        expires_at=None if record.expires_at is None else int(record.expires_at),
    )
