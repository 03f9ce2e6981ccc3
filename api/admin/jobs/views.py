"""Jobs as /v1/jobs shows them. Synchronous: reads the record, the request and the log."""

from __future__ import annotations

from typing import Any

import msgspec

from api.admin.jobs.schema import JobAnswer, JobErrorObject, JobProgress
from api.admin.jobs.waiting import WaitingView
from api.dialects.anthropic.answer import Answer as MessageAnswer
from api.dialects.llama_server.answers import NativeView
from api.dialects.ollama.answers import Answer as OllamaAnswer
from api.dialects.openai.embeddings.vectors import embeddings_answer
from api.dialects.openai.generation.answers import whole_answer
from api.dialects.openai.generation.logprobs import next_token_probabilities
from api.dialects.openai.text.translate import text_answer
from api.dialects.responses.answer import Answer as ResponseAnswer
from api.execution.services import Services
from api.execution.shapes import Shape
from api.execution.submissions import tier_of
from jobs.contract.errors import JobNotFoundError, no_job
from jobs.contract.events import Event, EventKind
from jobs.contract.pulls import PullRequest
from jobs.contract.records import JobRecord
from jobs.contract.requests import (
    CacheLimitRequest,
    EmbedRequest,
    GenerateRequest,
    LoadRequest,
    Task,
    UnloadRequest,
)
from jobs.keys.caller import Caller
from jobs.keys.key_ring import KeyRing
from jobs.storage.event_log import read_log
from jobs.storage.store import JobStore
from jobs.storage.stored_responses import read_stored


def job_answer(record: JobRecord, waiting: WaitingView, keys: KeyRing) -> JobAnswer:
    """The job from its record and its place, without result and error.

    It names the key of its caller, or the caller's id, if that key is gone.
    """
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
        key=keys.name_of(record.caller) or record.caller or None,
        queue=waiting.queue_of(record),
        deadline_at=record.deadline_at,
        batch=record.batch or None,
        line=record.line or None,
        retry_of=record.retry_of or None,
        yields=record.yields,
        cancel_reason=record.cancel or None,
    )


def shown_record(store: JobStore, job_id: str, caller: Caller) -> JobRecord:
    """The job's record; ``JobNotFoundError`` when there is none, or its client has deleted it.

    So, too, when it is not this caller's: nobody learns which ids others have.
    """
    record = store.record(job_id)
    if not caller.may_see(record.caller):
        raise no_job(job_id)
    if record.is_deleted:
        raise JobNotFoundError(f"job {job_id[:80]!r} was deleted", "job_id")
    return record


def job_with_result(services: Services, job_id: str) -> JobAnswer:
    """The job, with its result or its error once it has ended."""
    store = services.store
    record = shown_record(store, job_id, services.caller)
    waiting = WaitingView(store)
    answer = job_answer(record, waiting, KeyRing(services.settings))
    if not record.status.is_terminal:
        shown = {"progress": _progress(store, record), "wait": waiting.wait_of(record)}
        return answer.model_copy(update=shown)
    events = read_log(store.redis, job_id)
    last = events[-1] if events else None
    if last is None or not last.is_terminal:
        return answer
    if last.kind is EventKind.FINISHED:
        return answer.model_copy(update={"result": _result(store, record, events)})
    return answer.model_copy(update={"error": _error(last)})


def _progress(store: JobStore, record: JobRecord) -> JobProgress | None:
    """The last figures of a download; of other jobs the events have more."""
    if record.task is not Task.PULL:
        return None
    events = [e for e in read_log(store.redis, record.job_id) if e.kind is EventKind.PROGRESS]
    if not events:
        return None
    last = events[-1]
    return JobProgress(completed=last.completed or 0, total=last.total or 0, file=last.file or "")


def _error(last: Event) -> JobErrorObject | None:
    if last.error is None:
        return None
    return JobErrorObject(code=last.error.code, message=last.error.message, param=last.error.param)


def _result(store: JobStore, record: JobRecord, events: list[Event]) -> Any:
    """The body that a waiting client would have got; ``None`` if its data has expired."""
    try:
        request = store.request(record.job_id)
        if isinstance(request, GenerateRequest):
            return _generated(store, record, request, events)
    except JobNotFoundError:
        return None
    match request:
        case EmbedRequest():
            return embeddings_answer(request, events)
        case CacheLimitRequest():
            return {"cache_limit": request.num_bytes}
        case LoadRequest():
            return {"load": "success"}
        case UnloadRequest():
            return {"unload": "success"}
        case PullRequest():
            return {"pull": "success", "model_name": events[-1].text}
    return text_answer(request, events[-1])


def _generated(
    store: JobStore, record: JobRecord, request: GenerateRequest, events: list[Event]
) -> Any:
    match request.view.shape:
        case Shape.KIND:
            created = int(record.created_at)
            return whole_answer(record.job_id, created, request, events, _tier(record))
        case Shape.MESSAGE:
            return _message(record, request, events)
        case Shape.RESPONSE:
            return _response(store, record.job_id, events)
        case Shape.NATIVE:
            return NativeView(request).shown(events)
        case Shape.OLLAMA_CHAT | Shape.OLLAMA_TEXT:
            return OllamaAnswer.of(request).whole(events)
        case Shape.LOGITS:
            return {"logits": next_token_probabilities(events)}
    return None  # a shape of a newer version


def _tier(record: JobRecord) -> str:
    return tier_of(record.job_class, record.priority)


def _message(record: JobRecord, request: GenerateRequest, events: list[Event]) -> dict[str, Any]:
    is_shown, tier = request.view.is_thinking_shown, _tier(record)
    answer = MessageAnswer(record.job_id, request.model, is_thinking_shown=is_shown, tier=tier)
    for event in events:
        answer.feed(event)
    return answer.shown()


def _response(store: JobStore, response_id: str, events: list[Event]) -> Any:
    """The response; ``JobNotFoundError`` if it was not stored or was deleted."""
    stored, kept = read_stored(store.redis, response_id)
    if kept is not None:
        return msgspec.json.decode(kept)
    answer = ResponseAnswer(stored)
    for event in events:
        answer.feed(event)
    return answer.shown()
