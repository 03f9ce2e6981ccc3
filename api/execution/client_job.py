"""A job that lives as long as its client's connection: it is cancelled when that closes.

Nothing here relies on task cancellation reaching a deep await: the job is cancelled by a task of
its own, and the terminal event that follows ends the reader.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

from redis.exceptions import RedisError
from starlette.types import Receive

from api.execution.runner import JobRunner, Ticket, check
from api.execution.worker_liveness import Missing
from jobs import asyncio_tasks
from jobs.contract.errors import (
    ContractError,
    JobError,
    JobNotFoundError,
    JobTimeoutError,
    ModelUnloadedError,
    NotReadyError,
    StorageLostError,
    WorkerLostError,
)
from jobs.contract.events import Event
from jobs.platform.awake_time import awake_timeout
from jobs.storage import names

_FIRST_CHECK_S = 0.5
_CHECK_S = 5.0
# Looks without any staff, one a second, each some seconds after the last sign of life.
_WAITING_PATIENCE = 10  # a supervisor may be restarting
_RUNNING_PATIENCE = {
    Missing.SUPERVISOR: 3,
    Missing.MACHINE: 10,  # another one takes the model over once its owner's claim has expired
}


class ClientJob:
    """One job, its client and its reader, the task that made this object."""

    def __init__(self, runner: JobRunner, ticket: Ticket, timeout_s: float) -> None:
        self.ticket = ticket
        self._runner = runner
        self._timeout_s = timeout_s
        self._is_started = False
        self._is_over = False
        self._reader = asyncio.current_task()
        self._error: Exception | None = None
        self._slug = names.slug_of(ticket.desired.model_id)
        self._tasks: list[asyncio.Task[None]] = []

    @contextlib.asynccontextmanager
    async def run(self, receive: Receive) -> AsyncIterator[AsyncIterator[Event]]:
        """Submit the job; yields its events, up to ``finished``. What else ends it is raised."""
        try:
            async with (
                self._runner.subscribe(self.ticket.job_id) as subscription,
                awake_timeout(self._timeout_s),
                self._submitted(receive),
                contextlib.aclosing(self._runner.hub.read(subscription)) as events,
            ):
                subscription.is_known = True
                yield self._noted(events)
        except TimeoutError:
            raise JobTimeoutError(f"no end within {self._timeout_s:g} s") from None
        except asyncio.CancelledError:
            if self._error is None or self._reader is None:
                raise
            self._reader.uncancel()
            raise self._error from None

    @contextlib.asynccontextmanager
    async def _submitted(self, receive: Receive) -> AsyncIterator[None]:
        """The job is queued, and cancelled at the end of the block if it has not ended."""
        timer: asyncio.TimerHandle | None = None
        try:
            await self._submit()
            # Only now: a job cannot be cancelled before it is there.
            self._start_watching(receive)
            # A timer, not a task: most jobs are over before it fires.
            timer = asyncio.get_running_loop().call_later(_FIRST_CHECK_S, self._watch_others)
            yield
        finally:
            if timer is not None:
                timer.cancel()
            for task in self._tasks:
                task.cancel()
            self._runner.staff.discard(self._slug, self._on_absence)
            self.cancel("the request ended before the job")

    async def _submit(self) -> None:
        try:
            await self._runner.submit(self.ticket.submission)
        except JobError:  # refused: there is nothing to cancel
            self._is_over = True
            raise

    async def _noted(self, events: AsyncIterator[Event]) -> AsyncIterator[Event]:
        async for event in events:
            self._is_started = True
            if event.is_terminal:
                self._is_over = True
                check(event)
            yield event
        if not self._is_over:
            raise JobNotFoundError("the events of the job are gone", "job_id")

    def cancel(self, reason: str) -> None:
        """End the job if it has not ended; at most once."""
        if not self._is_over:
            self._is_over = True
            self._runner.cancel_soon(self.ticket.job_id, reason)

    def give_up(self, error: Exception) -> None:
        """Cancel the job and make the reader raise ``error``, wherever it waits."""
        self.cancel(str(error))
        self._error = error
        if self._reader is not None:
            self._reader.cancel()

    def _start_watching(self, receive: Receive) -> None:
        name = f"client of {self.ticket.job_id}"
        task = asyncio_tasks.start(partial(self._watch_client, receive), name, self._on_blindness)
        self._tasks.append(task)

    def _on_blindness(self, error: Exception) -> None:
        self.give_up(JobError("the client's connection could not be watched"))

    async def _watch_client(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.cancel("the client closed the connection")

    def _watch_others(self) -> None:
        name = f"desired model of {self.ticket.job_id}"
        self._tasks.append(asyncio_tasks.keep_running(self._watch_desired, name))
        self._runner.staff.add(self._slug, self._on_absence)

    def _on_absence(self, num_looks: int, what: Missing) -> None:
        """No worker sends heartbeats for the model, and no supervisor restarts one."""
        error: JobError
        if self._is_started:
            patience = _RUNNING_PATIENCE[what]
            error = WorkerLostError(f"the worker of the model is gone, and {what}")
        else:
            patience = _WAITING_PATIENCE
            error = NotReadyError(f"{what}: nothing drains the queue")
        if not self._is_over and num_looks % patience == 0:
            self._runner.abandon_soon(self.ticket.job_id, error)

    async def _watch_desired(self) -> None:
        """End the wait for a job whose model has gone."""
        while not self._is_started:
            error = await self._missing_desired()
            if error is not None and not self._is_started:
                self.give_up(error)
                return
            await asyncio.sleep(_CHECK_S)

    async def _missing_desired(self) -> JobError | None:
        """The model was unloaded between our look and the submission: nobody settles the job.

        With Redis away nothing is known, nor by what cannot be read; the reader waits.
        """
        with contextlib.suppress(RedisError, ContractError):
            try:
                if await self._runner.is_wanted(self.ticket.desired):
                    return None
            except StorageLostError as lost:
                return lost
            model_id = self.ticket.desired.model_id
            return ModelUnloadedError(f"model_id {model_id!r} was unloaded")
        return None
