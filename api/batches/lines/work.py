"""Answers the lines of one batch: a window of jobs at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Iterator

from redis.exceptions import RedisError

from api.batches.held_batch import HeldBatch
from api.batches.lines.answers import Postponed, ended, is_unknown_model, never_ran, postponed_of
from api.batches.lines.app import call_route
from api.batches.lines.job import BatchLine
from api.batches.lines.job_ids import LineJobIds
from api.batches.lines.requests import body_for, error_answer, read_line, refusal_of
from api.batches.lines.saver import LineSaver
from api.batches.lines.turns import CallerOf, Turns
from api.batches.workplace import Workplace
from jobs.batches.input_file import InputFile, InputLine
from jobs.batches.journal import EndedLine, Journal, LineEnd
from jobs.contract.errors import JobError

_TICK_S = 1.0
_FIRST_RETRY_S, _LAST_RETRY_S = 0.5, 20.0
_MAX_FAULTS = 5
_END_WAIT_S = 30.0
_REST_AT_ONCE = 500
_GONE = 410

log = logging.getLogger(__name__)


class LineWork:
    """The lines of one batch, until all have ended or the process stops.

    ``over`` is what ended the batch before all of its lines had an answer.
    """

    def __init__(
        self,
        place: Workplace,
        held: HeldBatch,
        input_file: InputFile,
        journal: Journal,
        caller_of: CallerOf,
        turns: Turns,
        job_ids: LineJobIds,
    ) -> None:
        self._place = place
        self._held = held
        self._input = input_file
        self._journal = journal
        self._caller_of = caller_of
        self._turns = turns
        self._job_ids = job_ids
        self._saver = LineSaver(place, held, journal, job_ids)
        self._tasks: dict[asyncio.Task[EndedLine | None], BatchLine] = {}
        self.over: LineEnd | None = None
        self._is_over = asyncio.Event()

    async def run(self) -> bool:
        """Work. False if the process stops first: the jobs go on, and another follows them."""
        saving = asyncio.create_task(self._saver.run(), name="save lines")
        try:
            is_done = await self._feed(saving)
            await self._saver.save()
            return is_done
        finally:
            self._is_over.set()  # a route answers when it is cancelled: that is no reason to go on
            saving.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(saving, *self._tasks, return_exceptions=True)

    async def _feed(self, saving: asyncio.Task[None]) -> bool:
        lines = (n for n in range(1, len(self._input) + 1) if not self._journal.has(n))
        following = next(lines, None)
        while following is not None or self._tasks:
            if self._place.stopping.is_set():
                return False
            if saving.done():
                saving.result()  # raises what ended it
            self.over = self._find_end()
            if self.over is not None:
                await self._end_rest(self.over)
                return True
            window = await self._turns.window(self._slug)
            self._saver.note_hold(self._turns.hold)
            while following is not None and self._has_room(window):
                self._start(following)
                following = next(lines, None)
            await self._wait(saving)
        return True

    @property
    def _slug(self) -> str | None:
        """Of the model that the lines use now; ``None`` while none has a job."""
        submissions = (line.submission for line in self._tasks.values())
        return next((one.slug for one in submissions if one is not None), None)

    def _has_room(self, window: int) -> bool:
        return len(self._tasks) < window and self._saver.has_room.is_set()

    def _find_end(self) -> LineEnd | None:
        if self._held.is_cancelling.is_set():
            return LineEnd.CANCELLED
        return LineEnd.EXPIRED if time.time() >= self._held.record.expires_at else None

    def _start(self, number: int) -> None:
        job_id = self._job_ids.of(number)
        batch_id = self._held.record.id
        line = BatchLine(self._place.services, self._caller_of(), batch_id, number, job_id)
        self._tasks[asyncio.create_task(self._answer(line), name=job_id)] = line

    async def _wait(self, saving: asyncio.Task[None]) -> None:
        """Until a line has ended, or something else is to be looked at."""
        left_s = self._held.record.expires_at - time.time()
        events = [self._held.is_cancelling, self._place.stopping]
        if not self._saver.has_room.is_set():
            events.append(self._saver.has_room)
        others = [asyncio.create_task(event.wait()) for event in events]
        try:
            await asyncio.wait(
                {*self._tasks, *others, saving},
                timeout=max(0.0, min(_TICK_S, left_s)),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for other in others:
                other.cancel()
        self._collect()

    def _collect(self) -> None:
        for task in [task for task in self._tasks if task.done()]:
            del self._tasks[task]
            if not task.cancelled() and (answer := task.result()) is not None:
                self._saver.add(answer)

    async def _answer(self, line: BatchLine) -> EndedLine | None:
        """The answer of a line, after as many tries as it takes; ``None`` if the batch is over."""
        record, request = self._held.record, read_line(self._input, line.line)
        max_bytes = self._place.services.settings.max_body_bytes
        refusal = refusal_of(request, record.endpoint, max_bytes)
        if refusal is not None:
            return ended(record, line.line, request.custom_id, refusal)
        pause_s, num_faults = _FIRST_RETRY_S, 0
        while not self._is_over.is_set():
            try:
                await self._turns.wait(bytes(request.body), self._is_over, self._saver.note)
                outcome = await self._try(line, request)
            except Exception:
                log.exception("a line of a batch has failed", extra={"job": line.job_id})
                num_faults += 1
                if num_faults == _MAX_FAULTS:
                    fault = error_answer(record.endpoint, 500, "internal_error", "internal error")
                    return ended(record, line.line, request.custom_id, fault)
                outcome = Postponed("internal_error", "a line has failed, and is tried again")
            if isinstance(outcome, EndedLine):
                self._saver.note(None)
                return outcome
            self._postpone(line, outcome)
            await self._pause(pause_s * random.uniform(0.5, 1))
            pause_s = min(2 * pause_s, _LAST_RETRY_S)
        return None

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_over.wait()

    async def _try(self, line: BatchLine, request: InputLine) -> EndedLine | Postponed:
        record = self._held.record
        state = {
            "caller": line.caller.id,
            "caller_info": line.caller,
            "is_known": True,
            "job_of": line.job,
        }
        body = body_for(record.endpoint, request.body)
        answer = await call_route(self._place.app, record.endpoint, body, state)
        if line.submission is not None:
            self._turns.note(body)
        postponed = postponed_of(answer)
        if postponed is None and is_unknown_model(answer):
            postponed = await self._turns.missing_model(body)
        if postponed is not None:
            await self._leave_job(line)
            return postponed
        if self.over is not None and answer.status == _GONE:
            return never_ran(record, line.line, request.custom_id, self.over)
        return ended(record, line.line, request.custom_id, answer)

    def _postpone(self, line: BatchLine, why: Postponed) -> None:
        if self._saver.waiting is None:
            log.info("a batch waits", extra={"batch": line.batch_id, "reason": why.code})
        self._saver.note(why)

    async def _leave_job(self, line: BatchLine) -> None:
        """The next try of a line has another job: this one has ended."""
        if line.submission is not None:
            await self._job_ids.renew(line.line)
            line.job_id, line.submission = self._job_ids.of(line.line), None

    async def _end_rest(self, end: LineEnd) -> None:
        """End the jobs that run or wait, keep what they have answered, and write off the rest."""
        self._is_over.set()
        await self._cancel_jobs(f"the batch has been {end.name.lower()}")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_END_WAIT_S)
        self._collect()
        for task in self._tasks:
            task.cancel()
        await self._saver.save()
        for numbers in _chunks(len(self._input)):
            left = [number for number in numbers if not self._journal.has(number)]
            await self._saver.write_off([self._written_off(number, end) for number in left])
            await asyncio.sleep(0)
        self._saver.note(None)

    def _written_off(self, number: int, end: LineEnd) -> EndedLine:
        custom_id = read_line(self._input, number).custom_id
        return never_ran(self._held.record, number, custom_id, end)

    async def _cancel_jobs(self, reason: str) -> None:
        store, runner = self._place.services.store, self._place.services.runner
        for line in list(self._tasks.values()):
            if line.submission is not None:
                with contextlib.suppress(RedisError, JobError):
                    await runner.in_thread(store.cancel, line.job_id, reason)


def _chunks(total: int) -> Iterator[range]:
    for first in range(1, total + 1, _REST_AT_ONCE):
        yield range(first, min(first + _REST_AT_ONCE, total + 1))
