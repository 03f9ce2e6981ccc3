"""Answers of /v1/messages/batches."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class RequestCounts(BaseModel):
    """How the requests have ended. While the batch runs, all count as ``processing``."""

    processing: int
    succeeded: int
    errored: int
    canceled: int
    expired: int


class MessageBatchObject(BaseModel):
    """A batch. Times are in RFC 3339."""

    id: str
    type: Literal["message_batch"] = "message_batch"
    processing_status: Literal["in_progress", "canceling", "ended"]
    request_counts: RequestCounts
    created_at: str
    expires_at: str
    ended_at: str | None = None
    cancel_initiated_at: str | None = None
    archived_at: str | None = None
    results_url: str | None = None


class MessageBatchList(BaseModel):
    """A page of batches, the newest first."""

    data: list[MessageBatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedMessageBatch(BaseModel):
    """The answer to a deletion."""

    id: str
    type: Literal["message_batch_deleted"] = "message_batch_deleted"
