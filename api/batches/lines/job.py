"""The job of a batch's line. It outlives the process that follows it: the next one goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from redis.exceptions import RedisError
from starlette.types import Receive

from api.execution.runner import JobRunner, Ticket, check
from api.execution.services import Services
from jobs import asyncio_tasks
from jobs.contract.errors import JobError, JobNotFoundError, ModelUnloadedError
from jobs.contract.events import Event
from jobs.keys.caller import Caller
from jobs.storage import names
from jobs.storage.submitter import Submission

_CHECK_S = 5.0


@dataclass(slots=True)
class BatchLine:
    """A line that is being answered. ``submission`` is set once its job was submitted."""

    services: Services
    caller: Caller
    batch_id: str
    line: int
    job_id: str
    submission: Submission | None = None

    def job(self, runner: JobRunner, ticket: Ticket, timeout_s: float) -> LineJob:
        """What the route follows in place of a job of its client's."""
        return LineJob(self, runner, ticket)


class LineJob:
    """Follows the job of a line from its first event, and submits it if there is none.

    Nothing here ends the job when its reader is gone: that is the batch's decision.
    """

    def __init__(self, line: BatchLine, runner: JobRunner, ticket: Ticket) -> None:
        self._line = line
        self._runner = runner
        self.ticket = Ticket(_submission_of(line, ticket.submission), ticket.desired)
        self._slug = self.ticket.submission.slug
        self._is_started = False

    @contextlib.asynccontextmanager
    async def run(self, receive: Receive) -> AsyncIterator[AsyncIterator[Event]]:
        """Yields the job's events up to ``finished``. Raises the error of another end."""
        watch = None
        try:
            async with (
                self._runner.subscribe(self.ticket.job_id) as subscription,
                contextlib.aclosing(self._runner.hub.read(subscription)) as events,
            ):
                await self._submit()
                subscription.is_known = True
                subscription.note_gap()  # an earlier runner's job has a log already
                name = f"desired model of {self.ticket.job_id}"
                watch = asyncio_tasks.keep_running(self._watch_desired, name)
                yield self._checked(events)
        finally:
            if watch is not None:
                watch.cancel()

    def give_up(self, error: Exception) -> None:
        """Only for streams, which lines are not."""
        raise AssertionError("a line is not streamed") from error

    async def _submit(self) -> None:
        services = self._line.services
        # Not by the runner: the limits of a key's requests are not for lines.
        await services.store.submit_through(services.redis, self.ticket.submission)
        self._line.submission = self.ticket.submission
        if self.ticket.desired.is_parked:
            with contextlib.suppress(RedisError):  # a supervisor looks once a second in any case
                await services.redis.publish(names.WAKEUP, b"")

    async def _checked(self, events: AsyncIterator[Event]) -> AsyncIterator[Event]:
        async for event in events:
            self._is_started = True
            if event.is_terminal:
                check(event)
                yield event
                return
            yield event
        raise JobNotFoundError("the events of the job are gone", "job_id")

    async def _watch_desired(self) -> None:
        """Until the job has started: end it when its model was unloaded. Nobody else would."""
        while not self._is_started:
            await asyncio.sleep(_CHECK_S)
            try:
                is_desired = self._slug in await self._runner.desired_models()
            except (RedisError, JobError):
                continue
            if not is_desired and not self._is_started:
                model_id = self.ticket.desired.model_id
                error = ModelUnloadedError(f"model_id {model_id!r} was unloaded")
                self._runner.abandon_soon(self.ticket.job_id, error)


def _submission_of(line: BatchLine, submission: Submission) -> Submission:
    """The route's submission as that of a line: of the batch's caller, and without an owner."""
    return replace(
        submission,
        job_id=line.job_id,
        job_class="batch",
        batch=line.batch_id,
        line=line.line,
        caller=line.caller.id,
        weight=line.caller.weight,
        max_running=line.caller.max_running,
        owner="",
        is_background=True,
        stored_key="",
        stored_data=b"",
        stored_ttl_s=0,
        keep_alive_s=None,
    )
