"""Takes the batches of this machine, works on several at once, and cleans up after them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from functools import partial

from redis.exceptions import RedisError

from api.batches.batch_run import BatchRun
from api.batches.held_batch import HeldBatch, LeaseLostError
from api.batches.lines.app import create_line_app
from api.batches.wakeups import BatchWakeups
from api.batches.workplace import Workplace
from api.execution.services import Services
from jobs.batches.line_jobs import LineJobs
from jobs.batches.records import BatchRecord
from jobs.batches.store import BatchStore
from jobs.contract.errors import JobError
from jobs.keys.caller import Caller
from jobs.settings import Settings

_MAX_PER_CALLER = 4
_LOOK_S = 2.0
_IDLE_S, _MOST_IDLE_S = 20.0, 120.0
_FAILED_PAUSE_S = 10.0

log = logging.getLogger(__name__)


class Workshop:
    """Works until there is nothing to do for a while, or ``stopping`` is set."""

    def __init__(self, settings: Settings, wakeups: BatchWakeups, stopping: asyncio.Event) -> None:
        self._services = Services.create(settings)
        self._wakeups = wakeups
        self._stopping = stopping
        redis = self._services.store.redis
        self._batches = BatchStore(settings, redis)
        self._place = Workplace(
            self._services, create_line_app(self._services), LineJobs(redis), stopping
        )
        self._held: dict[str, HeldBatch] = {}
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._not_before: dict[str, float] = {}

    async def run(self) -> None:
        await self._services.hub.start()
        idle_since = time.monotonic()
        try:
            while not self._stopping.is_set():
                await self._forget_jobs()
                if await self._take_batches() or self._tasks:
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > self._idle_s:
                    return
                await self._wait()
        finally:
            await self._stop()

    @property
    def _idle_s(self) -> float:
        """How long there must be nothing to do; longer while jobs of lines are still to go."""
        return _IDLE_S if not self._place.line_jobs.num_waiting else _MOST_IDLE_S

    async def _forget_jobs(self) -> None:
        """Delete the jobs of saved lines that could not be deleted when those were saved."""
        if self._place.line_jobs.num_waiting:
            with contextlib.suppress(RedisError):
                await self._services.runner.in_thread(self._place.line_jobs.forget)

    async def _stop(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        services = self._services
        await services.runner.stop()
        await services.hub.stop()
        services.readiness.close()
        await services.redis.aclose()
        await services.subscriber.aclose()
        services.store.redis.close()

    async def _wait(self) -> None:
        """Until a batch was added or is to be cancelled, one has ended, or some time is over."""
        wake = asyncio.create_task(self._wakeups.event.wait())
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait(
                {wake, stop, *self._tasks},
                timeout=_LOOK_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for task in (wake, stop):
                task.cancel()
        if self._wakeups.event.is_set():
            self._wakeups.event.clear()
            await asyncio.gather(*map(_look, self._held.values()))
        self._collect()

    def _collect(self) -> None:
        for task in [task for task in self._tasks if task.done()]:
            batch_id = self._tasks.pop(task)
            self._held.pop(batch_id, None)
            error = None if task.cancelled() else task.exception()
            if isinstance(error, LeaseLostError):
                log.warning("a batch was taken over", extra={"batch": batch_id})
            elif error is not None:
                self._not_before[batch_id] = time.monotonic() + _FAILED_PAUSE_S
                log.error("a batch has failed", exc_info=error, extra={"batch": batch_id})

    async def _take_batches(self) -> bool:
        """Begin with batches that nobody works on. Whether this machine has any."""
        try:
            await self._services.runner.in_thread(self._batches.ensure_index)
            active = await self._services.runner.in_thread(self._batches.active)
        except RedisError:
            return True
        is_any = False
        for batch_id in active:
            try:
                is_any |= await self._take(batch_id)
            except (RedisError, OSError, JobError) as error:
                facts = {"batch": batch_id, "error": str(error)}
                log.warning("a batch cannot be taken", extra=facts)
                is_any = True
        return is_any

    async def _take(self, batch_id: str) -> bool:
        if batch_id in self._held or not self._batches.folder(batch_id).exists:
            return batch_id in self._held
        if time.monotonic() < self._not_before.get(batch_id, 0):
            return True
        runner = self._services.runner
        record = await runner.in_thread(self._batches.get, batch_id)
        callers = Counter(held.record.caller for held in self._held.values())
        if callers[record.caller] >= _MAX_PER_CALLER:
            return True
        held = await HeldBatch.take(self._batches, runner, batch_id)
        if held is not None:
            self._held[batch_id] = held
            task = asyncio.create_task(self._work(held), name=batch_id)
            self._tasks[task] = batch_id
        return True

    async def _work(self, held: HeldBatch) -> None:
        caller_of = partial(self._caller_of, held.record.caller)
        sharing = partial(self._num_sharing, held.record)
        run = BatchRun(self._place, held, caller_of, sharing)
        renewal = asyncio.create_task(held.keep_renewed(), name="renew a batch")
        work = asyncio.create_task(run.run(), name=f"run {held.record.id}")
        try:
            await asyncio.wait({renewal, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await renewal  # raises LeaseLostError
            await work
        finally:
            for task in (renewal, work):
                task.cancel()
            await asyncio.gather(renewal, work, return_exceptions=True)
            await held.release()

    def _caller_of(self, caller_id: str) -> Caller:
        """The caller as its key is now; what was accepted of a key that is gone still runs."""
        return self._services.keys.of_id(caller_id) or Caller(caller_id)

    def _num_sharing(self, record: BatchRecord) -> int:
        model = next(
            (one.record.model for one in self._held.values() if one.record.id == record.id), None
        )
        return sum(one.record.model == model for one in self._held.values())


async def _look(held: HeldBatch) -> None:
    try:
        await held.renew()
    except (RedisError, LeaseLostError) as error:
        log.info("a batch is looked at later", extra={"error": str(error)})
