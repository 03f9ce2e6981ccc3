"""Jobs as /v1/jobs shows them. Synchronous: reads the record, the request and the log."""

from __future__ import annotations

from typing import Any

from api.embeddings import embeddings_answer
from api.openai.answers import whole_answer
from api.openai.text import text_answer
from api.schemas.jobs import JobAnswer, JobErrorObject
from jobs.errors import JobNotFoundError
from jobs.event_log import read_log
from jobs.events import Event, EventKind
from jobs.records import JobRecord
from jobs.requests import (
    CacheLimitRequest,
    EmbedRequest,
    GenerateRequest,
    LoadRequest,
    UnloadRequest,
)
from jobs.store import JobStore


def job_answer(record: JobRecord) -> JobAnswer:
    """What the record alone says."""
    return JobAnswer(
        id=record.job_id,
        task=record.task.value.removeprefix("mgs."),
        status=record.status.value,
        model_id=record.model_id,
        created_at=record.created_at,
        started_at=record.started_at,
        ended_at=record.ended_at,
        attempt=record.attempt,
        background=record.is_background,
        cancel_reason=record.cancel or None,
    )


def job_with_result(store: JobStore, job_id: str) -> JobAnswer:
    """The job, with its result or its error once it has ended."""
    record = store.record(job_id)
    answer = job_answer(record)
    if not record.status.is_terminal:
        return answer
    events = read_log(store.redis, job_id)
    last = events[-1] if events else None
    if last is None or not last.is_terminal:
        return answer
    if last.kind is EventKind.FINISHED:
        return answer.model_copy(update={"result": _result(store, record, events)})
    return answer.model_copy(update={"error": _error(last)})


def _error(last: Event) -> JobErrorObject | None:
    if last.error is None:
        return None
    return JobErrorObject(code=last.error.code, message=last.error.message, param=last.error.param)


def _result(store: JobStore, record: JobRecord, events: list[Event]) -> Any:
    """The body that a waiting client would have got."""
    try:
        request = store.request(record.job_id)
    except JobNotFoundError:
        return None
    match request:
        case GenerateRequest():
            return whole_answer(record.job_id, int(record.created_at), request, events)
        case EmbedRequest():
            return embeddings_answer(request, events)
        case LoadRequest() | UnloadRequest() | CacheLimitRequest():
            return None
    return text_answer(request, events[-1])
