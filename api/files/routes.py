"""OpenAI's files: store, list, show, read and delete."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api.execution.services import Services, ServicesDep
from api.files.access import checked_name, expiry_of, file_answer, file_of
from api.files.content import FileContent, is_known, served
from api.files.receiving import FormReceiver, ReceivedForm
from api.files.schema import DeletedFile, ExpiresAfter, FileAnswer, FileList, Purpose
from api.web.auth import CallerDep
from api.web.base_schema import Body
from api.web.error_schema import ERRORS, ErrorBody
from api.web.errors import checked
from jobs.contract.errors import InvalidRequestError
from jobs.files.record import FileRecord, is_file_id, no_file
from jobs.keys.caller import Caller

router = APIRouter(prefix="/v1/files", tags=["files"])
_MAX_PAGE = 10_000
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string"},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer"},
                    },
                }
            }
        },
    }
}
_STORED: dict[int | str, dict[str, Any]] = {
    **ERRORS,
    413: {"model": ErrorBody, "description": "The file is too large"},
    507: {"model": ErrorBody, "description": "The files take all the room that they may"},
}
_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string"}}}},
    206: {"description": "The range that was asked for"},
    304: {"description": "The client has this content"},
    416: {"model": ErrorBody, "description": "The file has no such range"},
    **ERRORS,
}


class _FileFields(Body):
    purpose: Purpose
    expires_after: ExpiresAfter | None = None


@router.post("", response_model=FileAnswer, responses=_STORED, openapi_extra=_FORM)
async def create_file(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """Store a file, sent as a form. Files of the purpose ``batch`` are kept for 30 days."""

    async def use(form: ReceivedForm) -> Response:
        return await _stored(form, services, caller)

    receiver = FormReceiver(services.files, "file", services.settings.max_file_bytes)
    return await receiver.receive(request, use)


async def _stored(form: ReceivedForm, services: Services, caller: Caller) -> Response:
    fields = _fields_of(form)
    partial = form.given_file("file")
    record: FileRecord = await services.runner.in_thread(
        services.files.add,
        partial,
        checked_name(form.filename, fields.purpose),
        fields.purpose,
        caller.id,
        expiry_of(fields.purpose, fields.expires_after),
    )
    return Response(file_answer(record).model_dump_json(), media_type="application/json")


def _fields_of(form: ReceivedForm) -> _FileFields:
    """Nested fields are written as ``expires_after[seconds]``."""
    values: dict[str, Any] = {}
    for name, value in form.fields.items():
        outer, bracket, inner = name.partition("[")
        if bracket and outer == "expires_after":
            values.setdefault(outer, {})[inner.rstrip("]")] = _number(value)
        else:
            values[name] = value
    return checked(_FileFields, values)


def _number(value: str) -> str | int:
    return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else value


@router.get("", responses=ERRORS)
async def list_files(
    services: ServicesDep,
    caller: CallerDep,
    after: str = "",
    limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = _MAX_PAGE,
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> FileList:
    """The caller's files, in order of creation."""
    if after and not is_file_id(after):
        raise InvalidRequestError("after: not the id of a file", "after")
    records, has_more = await services.runner.in_thread(
        services.files.list_files,
        None if caller.is_manager else caller.id,
        after=after,
        limit=limit,
        purpose=purpose,
        is_newest_first=order == "desc",
    )
    return FileList(
        data=[file_answer(record) for record in records],
        first_id=records[0].id if records else None,
        last_id=records[-1].id if records else None,
        has_more=has_more,
    )


@router.get("/{file_id}", responses=ERRORS)
async def show_file(file_id: str, services: ServicesDep, caller: CallerDep) -> FileAnswer:
    """A file's name, size and purpose."""
    return file_answer(await file_of(caller, services, file_id))


@router.delete("/{file_id}", responses=ERRORS)
async def delete_file(file_id: str, services: ServicesDep, caller: CallerDep) -> DeletedFile:
    """Delete a file. A batch that uses it goes on."""
    await file_of(caller, services, file_id)
    await services.runner.in_thread(services.files.delete, file_id)
    return DeletedFile(id=file_id)


@router.get("/{file_id}/content", response_class=Response, responses=_CONTENT)
async def read_file(
    file_id: str, request: Request, services: ServicesDep, caller: CallerDep
) -> Response:
    """A file's content, or a range of it."""
    record = await file_of(caller, services, file_id)
    if is_known(request.headers, record.etag):
        return Response(None, 304, {"ETag": record.etag})
    path = await services.runner.in_thread(services.files.path, file_id)
    try:
        return FileContent(served(path, record), request.headers)
    except FileNotFoundError:
        raise no_file(file_id) from None  # deleted just now
