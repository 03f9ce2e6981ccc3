"""OpenAI's uploads: a file in parts of up to 64 MB."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.execution.services import Services, ServicesDep
from api.files.access import checked_name, file_answer
from api.files.receiving import FormReceiver, ReceivedForm
from api.files.schema import MAX_EXPIRY_S, CompleteBody, UploadAnswer, UploadBody, UploadPart
from api.web.auth import CallerDep
from api.web.error_schema import ERRORS
from jobs.files.record import BATCH, FileRecord, FileTooLargeError
from jobs.files.upload_records import UploadRecord, new_upload, no_upload
from jobs.files.uploads import MAX_PART_BYTES, UploadStore
from jobs.keys.caller import Caller

router = APIRouter(prefix="/v1/uploads", tags=["files"], responses=ERRORS)
_PART: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["data"],
                    "properties": {"data": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


@router.post("")
async def create_upload(body: UploadBody, services: ServicesDep, caller: CallerDep) -> UploadAnswer:
    """Announce a file that is sent in parts. It expires after an hour."""
    limit = services.settings.max_file_bytes
    if body.bytes > limit:
        message = f"bytes: the file is larger than {limit} bytes (MGS_MAX_FILE_BYTES)"
        raise FileTooLargeError(message, "bytes")
    keep_s = MAX_EXPIRY_S if body.purpose == BATCH else None
    record = new_upload(
        num_bytes=body.bytes,
        filename=checked_name(body.filename, body.purpose, "filename"),
        purpose=body.purpose,
        owner=caller.id,
        keep_s=body.expires_after.seconds if body.expires_after else keep_s,
    )
    await services.runner.in_thread(UploadStore(services.files).create, record)
    return _answer(record)


@router.post("/{upload_id}/parts", response_model=UploadPart, openapi_extra=_PART)
async def add_part(
    upload_id: str, request: Request, services: ServicesDep, caller: CallerDep
) -> Response:
    """Send a part, in any order."""
    uploads = await _uploads_with(upload_id, services, caller)

    async def use(form: ReceivedForm) -> Response:
        partial = form.given_file("data")
        part_id = await services.runner.in_thread(uploads.add_part, upload_id, partial)
        part = UploadPart(id=part_id, created_at=int(time.time()), upload_id=upload_id)
        return Response(part.model_dump_json(), media_type="application/json")

    return await FormReceiver(services.files, "data", MAX_PART_BYTES).receive(request, use)


@router.post("/{upload_id}/complete")
async def complete_upload(
    upload_id: str, body: CompleteBody, services: ServicesDep, caller: CallerDep
) -> UploadAnswer:
    """Join the parts, in the order of ``part_ids``, to a file."""
    uploads = await _uploads_with(upload_id, services, caller)
    record, file = await services.runner.in_thread(
        uploads.complete, upload_id, body.part_ids, body.md5
    )
    return _answer(record, file)


@router.post("/{upload_id}/cancel")
async def cancel_upload(upload_id: str, services: ServicesDep, caller: CallerDep) -> UploadAnswer:
    """Give an upload up."""
    uploads = await _uploads_with(upload_id, services, caller)
    return _answer(await services.runner.in_thread(uploads.cancel, upload_id))


async def _uploads_with(upload_id: str, services: Services, caller: Caller) -> UploadStore:
    """The uploads, once the caller may see that one."""
    uploads = UploadStore(services.files)
    record = await services.runner.in_thread(uploads.record, upload_id)
    if not caller.may_see(record.owner):
        raise no_upload(upload_id)
    return uploads


def _answer(record: UploadRecord, file: FileRecord | None = None) -> UploadAnswer:
    return UploadAnswer.model_validate(
        {
            "id": record.id,
            "bytes": record.bytes,
            "created_at": int(record.created_at),
            "expires_at": int(record.expires_at),
            "filename": record.filename,
            "purpose": record.purpose,
            "status": record.shown_status(time.time()),
            "file": file_answer(file) if file else None,
        }
    )
