"""Bodies and answers of /v1/files and /v1/uploads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from api.web.base_schema import Body, Text, integer

Purpose = Literal["assistants", "batch", "evals", "fine-tune", "user_data", "vision"]
MIN_EXPIRY_S = 3600
MAX_EXPIRY_S = 30 * 86400
MAX_PARTS = 10_000


class ExpiresAfter(Body):
    """When the file is deleted by itself."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, integer(MIN_EXPIRY_S, MAX_EXPIRY_S)]


class UploadBody(Body):
    """POST /v1/uploads."""

    bytes: Annotated[int, integer(1, 2**53)]
    filename: Annotated[Text, Field(min_length=1, max_length=1024)]
    mime_type: Annotated[Text, Field(max_length=255)] = ""
    purpose: Purpose
    expires_after: ExpiresAfter | None = None


class CompleteBody(Body):
    """POST /v1/uploads/{upload_id}/complete: the parts in order."""

    part_ids: Annotated[list[Text], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True)]
    md5: Text | None = None


class FileAnswer(BaseModel):
    """A file. ``status`` is ``processed``: it can be used at once."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    expires_at: int | None = None
    status_details: str | None = None


class FileList(BaseModel):
    """A page of files; the next one comes after ``last_id``."""

    object: Literal["list"] = "list"
    data: list[FileAnswer]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFile(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class UploadAnswer(BaseModel):
    """A file that is sent in parts; ``file`` is there once the parts are joined."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: FileAnswer | None = None


class UploadPart(BaseModel):
    """A part of an upload."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str
