"""Responses that run a job while they are sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Protocol

from redis.exceptions import RedisError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.execution.client_job import ClientJob
from api.execution.loosened_schemas import loosened_header
from api.execution.runner import JobRunner, Ticket
from api.web.errors import NO_NAMES, Names, Problem, named_by, problem_of
from api.web.sse import BODY_SEND, EVENT_STREAM, PING, SseWriter
from jobs.contract.errors import JobError, ShuttingDownError
from jobs.contract.events import Event, EventKind

_LAST_FRAME_TIMEOUT_S = 0.5


class FollowedJob(Protocol):
    """A job and its reader: a client's (``ClientJob``), or that of a batch's line."""

    ticket: Ticket

    def run(self, receive: Receive) -> contextlib.AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Submit the job; gives its events up to ``finished``. Raises the error of another end."""

    def give_up(self, error: Exception) -> None:
        """Cancel the job and make the reader raise ``error`` from its current await."""


JobOf = Callable[[JobRunner, Ticket, float], FollowedJob]


class _JobResponse(Response):
    """Base class: sets the headers with the job's id, also of errors, and with left-out keywords.

    ``names``: the dialect's names of parameters, for the job's error.
    """

    def __init__(self, runner: JobRunner, ticket: Ticket, timeout_s: float, names: Names) -> None:
        super().__init__()
        self._runner = runner
        self._ticket = ticket
        self._timeout_s = timeout_s
        self._names = names

    def _foreground(self, scope: Scope) -> FollowedJob:
        """The job of this request; ``job_of`` in the scope's state makes that of a batch's line."""
        state = scope.setdefault("state", {})
        job_of: JobOf = state.get("job_of", ClientJob)
        job = job_of(self._runner, self._ticket, self._timeout_s)
        state["job_id"] = job.ticket.job_id
        return job

    @property
    def _own_headers(self) -> dict[str, str]:
        submission = self._ticket.submission
        return {"X-Job-Id": submission.job_id, **loosened_header(submission.request)}


@contextlib.contextmanager
def _shutdown_as_error() -> Iterator[None]:
    """Turn uvicorn's cancellation at the end of its grace period into ``ShuttingDownError``."""
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        raise ShuttingDownError("the server is shutting down") from None


class WholeAnswer(_JobResponse):
    """Waits for the job's end, then sends the body that ``assemble`` makes from its events."""

    def __init__(
        self,
        runner: JobRunner,
        ticket: Ticket,
        timeout_s: float,
        assemble: Callable[[list[Event]], bytes],
        names: Names = NO_NAMES,
    ) -> None:
        super().__init__(runner, ticket, timeout_s, names)
        self._assemble = assemble

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with named_by(self._names), _shutdown_as_error():
            async with self._foreground(scope).run(receive) as events:
                collected = [event async for event in events]
        body = self._assemble(collected)
        answer = Response(body, headers=self._own_headers, media_type="application/json")
        await answer(scope, receive, send)


class StreamEncoder(Protocol):
    """Encodes the events of one job as frames."""

    def feed(self, event: Event) -> bytes:
        """The frames of ``event``, possibly none; those of ``finished`` are the last."""

    def failed(self, problem: Problem) -> bytes:
        """The last frames of a stream whose job fails after the first byte."""


class StreamedAnswer(_JobResponse):
    """Sends an encoder's frames as the job's events arrive, and ``ping()`` while there are none."""

    def __init__(
        self,
        runner: JobRunner,
        ticket: Ticket,
        timeout_s: float,
        encoder: StreamEncoder,
        ping: Callable[[], bytes] = lambda: PING,
        names: Names = NO_NAMES,
        content_type: bytes = EVENT_STREAM,
    ) -> None:
        super().__init__(runner, ticket, timeout_s, names)
        self._encoder = encoder
        self._ping = ping
        self._content_type = content_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A task of its own: each wake-up of this one resumes about twenty coroutines of frameworks.
        await asyncio.create_task(self._stream(scope, receive, send))

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        job = self._foreground(scope)
        body_send = scope.get(BODY_SEND)
        writer = SseWriter(send, self._own_headers, self._ping, body_send, self._content_type)
        try:
            with named_by(self._names), _shutdown_as_error():
                async with job.run(receive) as events, writer.kept_alive(job.give_up):
                    async for event in events:
                        await self._show(event, writer)
        except (JobError, RedisError) as error:
            if not writer.is_open:
                raise
            await self._close_with(error, writer)

    async def _close_with(self, error: Exception, writer: SseWriter) -> None:
        """Send the error as the last frame; during shutdown, do not wait for a slow client."""
        is_stopping = isinstance(error, ShuttingDownError)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_FRAME_TIMEOUT_S if is_stopping else None):
                await writer.close(self._encoder.failed(problem_of(error)))

    async def _show(self, event: Event, writer: SseWriter) -> None:
        """Send the event's frames at once; the first event sends the headers."""
        await writer.open()
        frames = self._encoder.feed(event)
        if event.kind is EventKind.FINISHED:
            await writer.close(frames)
        elif frames:
            await writer.write(frames)
