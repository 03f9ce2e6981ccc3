"""A job that is cancelled when its client's connection closes.

It does not rely on asyncio's cancellation of the reader: a separate task cancels the job, and the
terminal event that follows ends the reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from functools import partial

from redis.exceptions import RedisError
from starlette.types import Receive

from api.execution.runner import JobRunner, Ticket, check
from api.execution.worker_liveness import Missing
from jobs import asyncio_tasks
from jobs.contract.errors import (
    ContractError,
    JobCancelledError,
    JobError,
    JobNotFoundError,
    JobTimeoutError,
    ModelUnloadedError,
    NotReadyError,
    StorageLostError,
    WorkerLostError,
    deadline_passed,
)
from jobs.contract.events import Event
from jobs.platform.awake_time import awake_timeout
from jobs.storage import names

_FIRST_CHECK_S = 0.5
_CHECK_S = 5.0
_CLOCKS_S = 1.0  # two machines' clocks differ
_DEADLINE_GRACE_S = 5.0  # the worker ends a running job at its deadline, after its step
# Checks in a row, one per second, that found neither worker nor supervisor.
_MAX_ABSENT_WAITING = 10  # a supervisor may be restarting
_MAX_ABSENT_RUNNING = {
    Missing.SUPERVISOR: 3,
    Missing.MACHINE: 10,  # another one takes the model over once its owner's lock has expired
}


class ClientJob:
    """One job and its client. Its reader is the task that made this object."""

    def __init__(self, runner: JobRunner, ticket: Ticket, timeout_s: float) -> None:
        self.ticket = ticket
        self._runner = runner
        self._timeout_s = timeout_s
        self._deadline_at = at = ticket.submission.deadline_at
        self._left_s = None if at is None else max(0.0, at - time.time())
        if self._left_s is not None:
            self._timeout_s = min(timeout_s, self._left_s + _DEADLINE_GRACE_S)
        self._is_started = False
        self._is_over = False
        self._reader = asyncio.current_task()
        self._error: Exception | None = None
        self._slug = names.slug_of(ticket.desired.model_id)
        self._tasks: list[asyncio.Task[None]] = []
        self._reader_name = ""  # only with an idempotency key

    @contextlib.asynccontextmanager
    async def run(self, receive: Receive) -> AsyncIterator[AsyncIterator[Event]]:
        """Submit the job; yields its events up to ``finished``. Raises the error of another end."""
        try:
            async with (
                self._runner.subscribe(self.ticket.job_id) as subscription,
                awake_timeout(self._timeout_s),
                self._submitted(receive),
                contextlib.aclosing(self._runner.hub.read(subscription)) as events,
            ):
                subscription.is_known = True
                if self._runner.claim is not None:
                    subscription.note_gap()  # the job may have begun: read the log first
                yield self._watched(events)
        except TimeoutError:
            raise self._timeout_error() from None
        except asyncio.CancelledError:
            if self._error is None or self._reader is None:
                raise
            self._reader.uncancel()
            raise self._error from None

    def _timeout_error(self) -> JobTimeoutError:
        if self._left_s is not None and self._left_s < self._timeout_s:
            return deadline_passed()
        return JobTimeoutError(f"no end within {self._timeout_s:g} s")

    @contextlib.asynccontextmanager
    async def _submitted(self, receive: Receive) -> AsyncIterator[None]:
        """Submit the job; cancel it at the end of the block if it has not ended."""
        timers: list[asyncio.TimerHandle] = []
        try:
            await self._submit()
            # After the submission: a job that does not exist cannot be cancelled.
            self._start_watching(receive)
            # Timers, not tasks: most jobs end before they fire.
            loop = asyncio.get_running_loop()
            timers.append(loop.call_later(_FIRST_CHECK_S, self._start_checks))
            if self._left_s is not None:
                timers.append(loop.call_later(self._left_s, self._on_deadline))
            yield
        finally:
            for timer in timers:
                timer.cancel()
            for task in self._tasks:
                task.cancel()
            self._runner.liveness.discard(self._slug, self._on_absence)
            self.cancel("the request ended before the job")
            if self._reader_name:
                self._runner.readers.leave_soon(self.ticket.job_id, self._reader_name)

    async def _submit(self) -> None:
        claim = self._runner.claim
        if claim is not None:
            submission = self.ticket.submission
            self._reader_name = await self._runner.readers.bind(claim, submission, is_read=True)
        try:
            await self._runner.submit_for(self.ticket)
        except JobError:  # refused, so there is no job to cancel
            self._is_over = True
            raise

    async def _watched(self, events: AsyncIterator[Event]) -> AsyncIterator[Event]:
        async for event in events:
            self._is_started = True
            if event.is_terminal:
                self._is_over = True
                self._check(event)
            yield event
        if not self._is_over:
            raise JobNotFoundError("the events of the job are gone", "job_id")

    def _check(self, event: Event) -> None:
        """Raise the error of the job's end; a worker does not say which of its limits it was."""
        try:
            check(event)
        except JobTimeoutError:
            if self._deadline_at is not None and event.t >= self._deadline_at - _CLOCKS_S:
                raise deadline_passed() from None
            raise

    def cancel(self, reason: str) -> None:
        """Cancel the job if it has not ended; at most once.

        That of an idempotency key only loses this reader.
        """
        if not self._is_over:
            self._is_over = True
            if not self._reader_name:
                self._runner.cancel_soon(self.ticket.job_id, reason)

    def give_up(self, error: Exception) -> None:
        """Cancel the job and make the reader raise ``error`` from its current await."""
        self.cancel(str(error))
        self._error = error
        if self._reader is not None:
            self._reader.cancel()

    def _start_watching(self, receive: Receive) -> None:
        name = f"client of {self.ticket.job_id}"
        task = asyncio_tasks.start(
            partial(self._watch_client, receive), name, self._on_watch_failed
        )
        self._tasks.append(task)

    def _on_watch_failed(self, error: Exception) -> None:
        self.give_up(JobError("the client's connection could not be watched"))

    async def _watch_client(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        reason = "the client closed the connection"
        self.cancel(reason)
        if self._reader_name:  # the job goes on, so no event ends the reader
            self.give_up(JobCancelledError(reason))

    def _start_checks(self) -> None:
        name = f"desired model of {self.ticket.job_id}"
        self._tasks.append(asyncio_tasks.keep_running(self._watch_desired, name))
        self._runner.liveness.add(self._slug, self._on_absence)

    def _on_deadline(self) -> None:
        """End the job if it waits; one that runs is ended by its worker, which has its tokens."""
        if not self._is_started and not self._is_over:
            self._runner.abandon_soon(self.ticket.job_id, deadline_passed())

    def _on_absence(self, num_checks: int, what: Missing) -> None:
        """The model has no worker, and no supervisor that would start one."""
        error: JobError
        if self._is_started:
            max_absent = _MAX_ABSENT_RUNNING[what]
            error = WorkerLostError(f"the worker of the model is gone, and {what}")
        else:
            max_absent = _MAX_ABSENT_WAITING
            error = NotReadyError(f"{what}: nothing drains the queue")
        if not self._is_over and num_checks % max_absent == 0:
            self._runner.abandon_soon(self.ticket.job_id, error)

    async def _watch_desired(self) -> None:
        """Until the job has started: end it when its model was unloaded."""
        while not self._is_started:
            error = await self._missing_desired()
            if error is not None and not self._is_started:
                if self._reader_name:
                    self._runner.cancel_soon(self.ticket.job_id, str(error))
                self.give_up(error)
                return
            await asyncio.sleep(_CHECK_S)

    async def _missing_desired(self) -> JobError | None:
        """The error of a model that was unloaded between ``resolve`` and the submission.

        No worker or supervisor would end such a job. ``None`` while the model is desired, Redis
        cannot be reached, or the desired model cannot be decoded.
        """
        with contextlib.suppress(RedisError, ContractError):
            try:
                if await self._runner.is_desired(self.ticket.desired):
                    return None
            except StorageLostError as lost:
                return lost
            model_id = self.ticket.desired.model_id
            return ModelUnloadedError(f"model_id {model_id!r} was unloaded")
        return None
