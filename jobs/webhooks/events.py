"""The types of events, and the body of one."""

from __future__ import annotations

from typing import Final

import msgspec

EVENT_TYPES: Final = (
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
    "response.completed",
    "response.failed",
    "response.cancelled",
    "response.incomplete",
    "job.finished",
    "job.failed",
    "job.cancelled",
)
"""OpenAI's, as far as they happen here, and three of ours for background jobs."""

_ID_PREFIXES = {"batch": "batch_", "response": "resp_", "job": "chatcmpl-"}


def event_body(event_id: str, kind: str, created_at: int, object_id: str) -> bytes:
    """The body of a delivery. ``QUEUE_EVENT`` (jobs/storage/lua) builds the same text."""
    event = {
        "id": event_id,
        "object": "event",
        "created_at": created_at,
        "type": kind,
        "data": {"id": object_id},
    }
    return msgspec.json.encode(event)


def sample_object_id(kind: str, suffix: str) -> str:
    """The id of an object that does not exist, for a test of an endpoint."""
    return _ID_PREFIXES[kind.partition(".")[0]] + suffix
