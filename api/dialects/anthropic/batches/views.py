"""A batch as Anthropic's clients know it. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from starlette.requests import Request

from api.dialects.anthropic.batches.schema import MessageBatchObject, RequestCounts
from jobs.batches.records import BatchRecord

_ARCHIVED_AFTER_S = 29 * 86400


def batch_object(record: BatchRecord, request: Request) -> MessageBatchObject:
    """The answer about one batch; its results lie at the address that this request was sent to."""
    is_ended = record.status.is_terminal
    return MessageBatchObject(
        id=record.id,
        processing_status=_status(record),
        request_counts=_counts(record),
        created_at=_time(record.created_at),
        expires_at=_time(record.expires_at),
        ended_at=_time(record.ended_at) if record.ended_at else None,
        cancel_initiated_at=_time(record.cancelling_at) if record.cancelling_at else None,
        results_url=_results_url(record, request) if is_ended else None,
    )


def _status(record: BatchRecord) -> Literal["in_progress", "canceling", "ended"]:
    if record.status.is_terminal:
        return "ended"
    return "canceling" if record.cancelling_at else "in_progress"


def _counts(record: BatchRecord) -> RequestCounts:
    counts = record.counts
    if not record.status.is_terminal:
        return RequestCounts(processing=counts.total, succeeded=0, errored=0, canceled=0, expired=0)
    return RequestCounts(
        processing=0,
        succeeded=counts.completed,
        errored=counts.total - counts.completed - counts.cancelled - counts.expired,
        canceled=counts.cancelled,
        expired=counts.expired,
    )


def _results_url(record: BatchRecord, request: Request) -> str:
    """Clients send their key to this address: it is the one that they have sent it to already."""
    base = str(request.base_url).rstrip("/")
    return f"{base}/v1/messages/batches/{record.id}/results"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
