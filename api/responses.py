"""Answers that run a job while they are sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from redis.exceptions import RedisError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.chunks import ChunkEncoder
from api.errors import problem_of
from api.foreground import Foreground
from api.runner import JobRunner, Ticket
from api.sse import SseWriter
from jobs.errors import JobError, ShuttingDownError
from jobs.events import Event, EventKind

_GOODBYE_S = 0.5


class _JobResponse(Response):
    """Base: the job's id is in the headers, of errors too."""

    def __init__(self, runner: JobRunner, ticket: Ticket, timeout_s: float) -> None:
        super().__init__()
        self._runner = runner
        self._ticket = ticket
        self._timeout_s = timeout_s

    def _foreground(self, scope: Scope) -> Foreground:
        scope.setdefault("state", {})["job_id"] = self._ticket.job_id
        return Foreground(self._runner, self._ticket, self._timeout_s)

    @property
    def _id_header(self) -> dict[str, str]:
        return {"X-Job-Id": self._ticket.job_id}


class WholeAnswer(_JobResponse):
    """Waits for the job's end, then answers with what ``assemble`` makes of its events."""

    def __init__(
        self,
        runner: JobRunner,
        ticket: Ticket,
        timeout_s: float,
        assemble: Callable[[list[Event]], bytes],
    ) -> None:
        super().__init__(runner, ticket, timeout_s)
        self._assemble = assemble

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._foreground(scope).run(receive) as events:
            collected = [event async for event in events]
        body = self._assemble(collected)
        answer = Response(body, headers=self._id_header, media_type="application/json")
        await answer(scope, receive, send)


class StreamedAnswer(_JobResponse):
    """Sends OpenAI's chunks as the job's events come."""

    def __init__(
        self, runner: JobRunner, ticket: Ticket, timeout_s: float, encoder: ChunkEncoder
    ) -> None:
        super().__init__(runner, ticket, timeout_s)
        self._encoder = encoder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        job = self._foreground(scope)
        writer = SseWriter(send, self._id_header)
        try:
            async with job.run(receive) as events, writer.kept_alive(job.give_up):
                async for event in events:
                    await self._show(event, writer)
        except (JobError, RedisError) as error:
            if not writer.is_open:
                raise
            await writer.close(problem_of(error).frame())
        except asyncio.CancelledError:
            if writer.is_open:  # the process stops: say so, if the client still listens
                await self._say_goodbye(writer)
            raise

    async def _say_goodbye(self, writer: SseWriter) -> None:
        error = ShuttingDownError("the server is shutting down")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await writer.close(problem_of(error).frame())

    async def _show(self, event: Event, writer: SseWriter) -> None:
        """The event's frames in one send; the first event opens the answer."""
        await writer.open()
        frames = self._encoder.feed(event)
        if event.kind is EventKind.FINISHED:
            await writer.close(frames)
        elif frames:
            await writer.write(frames)
