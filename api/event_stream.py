"""A job's own events as SSE, with ids: what a browser's EventSource can resume."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.errors import problem_of
from api.runner import JobRunner
from api.sse import SseWriter
from jobs.errors import JobError
from jobs.events import Event, EventId, encode_event


class EventStream(Response):
    """Names the media type in OpenAPI."""

    media_type = "text/event-stream"


class JobEvents(Response):
    """Replays a job's log after ``start``, then follows it. The job does not notice readers."""

    def __init__(self, runner: JobRunner, job_id: str, start: EventId) -> None:
        super().__init__()
        self._runner = runner
        self._job_id = job_id
        self._start = start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writer = SseWriter(send, {"X-Job-Id": self._job_id})
        reader = asyncio.current_task()
        assert reader is not None
        is_left = False

        def leave(_: Exception | None = None) -> None:
            nonlocal is_left
            is_left = True
            reader.cancel()

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            leave()

        watcher = asyncio.create_task(watch())
        try:
            async with writer.kept_alive(leave):
                await self._follow(writer)
        except asyncio.CancelledError:
            if not is_left:
                raise
            reader.uncancel()
        finally:
            watcher.cancel()

    async def _follow(self, writer: SseWriter) -> None:
        await writer.open()
        try:
            async with contextlib.aclosing(
                self._runner.hub.replay(self._job_id, self._start)
            ) as events:
                async for event in events:
                    await writer.write(frame(event))
        except JobError as error:
            await writer.write(b"event: error\n" + problem_of(error).frame())
        await writer.close()


def frame(event: Event) -> bytes:
    """One SSE event: id, kind, and the event itself."""
    head = f"id: {event.id}\nevent: {event.kind.value}\ndata: "
    return head.encode() + encode_event(event) + b"\n\n"
