"""A job's events as SSE with ids, so that a browser's EventSource can resume."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from api.execution.runner import JobRunner
from api.web.errors import problem_of
from api.web.sse import PING
from jobs.contract.errors import JobError
from jobs.contract.events import EventId, encode_event

_PING_S = 10
_SEND_TIMEOUT_S = 30.0


class EventStream(Response):
    """Gives OpenAPI the media type."""

    media_type = "text/event-stream"


def stream_events(runner: JobRunner, job_id: str, start: EventId) -> EventSourceResponse:
    """Replays a job's log after ``start``, then follows it. Readers have no effect on the job."""
    return sse_response(_frames(runner, job_id, start), job_id)


def sse_response(
    frames: AsyncIterator[ServerSentEvent | bytes], job_id: str
) -> EventSourceResponse:
    """Sends ``frames`` as they arrive; a disconnect of the client does not end the job."""
    return EventSourceResponse(
        frames,
        headers={"X-Job-Id": job_id},
        sep="\n",
        ping=_PING_S,
        # A comment without a blank line, which some clients read as an empty event.
        ping_message_factory=lambda: PING,  # type: ignore[arg-type, return-value]
        send_timeout=_SEND_TIMEOUT_S,
    )


async def _frames(
    runner: JobRunner, job_id: str, start: EventId
) -> AsyncIterator[ServerSentEvent | bytes]:
    try:
        async with contextlib.aclosing(runner.hub.replay(job_id, start)) as events:
            async for event in events:
                data = encode_event(event).decode()
                yield ServerSentEvent(data, event=event.kind.value, id=str(event.id), sep="\n")
    except JobError as error:
        yield b"event: error\n" + problem_of(error).frame()
