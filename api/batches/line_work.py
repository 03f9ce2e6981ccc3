"""Answers the lines of one batch: a window of jobs at once, and each answer to disk."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from redis.exceptions import RedisError

from api.batches.held_batch import HeldBatch
from api.batches.line_answers import Postponed, ended, is_unknown_model, never_ran, postponed_of
from api.batches.line_app import RouteAnswer, call_route
from api.batches.line_job import BatchLine
from api.batches.turns import Turns
from api.execution.services import Services
from jobs.batches.input_file import InputFile, InputLine
from jobs.batches.journal import EndedLine, Journal, LineEnd
from jobs.batches.line_jobs import LineJobs
from jobs.contract.errors import JobError
from jobs.keys.caller import Caller

_GROUP_S = 0.25  # answers of this time are synced together
_GROUP_LINES = 64
_MAX_UNSAVED = 512
_TICK_S = 1.0
_FIRST_RETRY_S, _LAST_RETRY_S = 0.5, 20.0
_DISK_RETRY_S = 5.0
_END_WAIT_S = 30.0
_REST_AT_ONCE = 500

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Workplace:
    """What the work on all batches shares. ``stopping`` is set when the process is to end."""

    services: Services
    app: Any
    line_jobs: LineJobs
    stopping: asyncio.Event


class LineWork:
    """The lines of one batch, until all have ended or the process stops."""

    def __init__(
        self,
        place: Workplace,
        held: HeldBatch,
        input_file: InputFile,
        journal: Journal,
        caller: Caller,
        turns: Turns,
    ) -> None:
        self._place = place
        self._held = held
        self._input = input_file
        self._journal = journal
        self._caller = caller
        self._turns = turns
        self._unsaved: list[EndedLine] = []
        self._has_unsaved = asyncio.Event()
        self._saved = asyncio.Event()
        self._tasks: dict[asyncio.Task[EndedLine | None], BatchLine] = {}
        self._waiting: Postponed | None = None
        self._over: LineEnd | None = None
        self._is_over = asyncio.Event()

    @property
    def over(self) -> LineEnd | None:
        """What ended the batch before all of its lines had an answer."""
        return self._over

    async def run(self) -> bool:
        """Work. False if the process stops first: then the jobs go on, and another follows them."""
        saver = asyncio.create_task(self._save_groups(), name="save lines")
        try:
            is_done = await self._feed(saver)
            await self._save()
            return is_done
        finally:
            saver.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(saver, *self._tasks, return_exceptions=True)

    async def _feed(self, saver: asyncio.Task[None]) -> bool:
        lines = (n for n in range(1, len(self._input) + 1) if not self._journal.has(n))
        following = next(lines, None)
        while following is not None or self._tasks:
            if self._place.stopping.is_set():
                return False
            if saver.done():
                saver.result()
            self._over = self._find_end()
            if self._over is not None:
                self._is_over.set()
                await self._end_rest(self._over)
                return True
            window = await self._turns.window()
            while (
                following is not None
                and len(self._tasks) < window
                and len(self._unsaved) < _MAX_UNSAVED
            ):
                self._start(following)
                following = next(lines, None)
            await self._wait()
        return True

    def _find_end(self) -> LineEnd | None:
        if self._held.is_cancelling.is_set():
            return LineEnd.CANCELLED
        return LineEnd.EXPIRED if time.time() >= self._held.record.expires_at else None

    def _start(self, line: int) -> None:
        record = self._held.record
        job_id = record.line_job(line)
        batch_line = BatchLine(self._place.services, self._caller, record.id, line, job_id)
        task = asyncio.create_task(self._answer(batch_line), name=job_id)
        self._tasks[task] = batch_line

    async def _wait(self) -> None:
        """Until a line has ended, or something else is to be looked at."""
        left_s = self._held.record.expires_at - time.time()
        others = [
            asyncio.create_task(event.wait())
            for event in (self._held.is_cancelling, self._place.stopping)
        ]
        if len(self._unsaved) >= _MAX_UNSAVED:
            self._saved.clear()
            others.append(asyncio.create_task(self._saved.wait()))
        try:
            await asyncio.wait(
                {*self._tasks, *others},
                timeout=max(0.0, min(_TICK_S, left_s)),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for other in others:
                other.cancel()
        self._collect()

    def _collect(self) -> None:
        for task in [task for task in self._tasks if task.done()]:
            line = self._tasks.pop(task)
            self._note(line, task)

    def _note(self, line: BatchLine, task: asyncio.Task[EndedLine | None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.error("a line of a batch has failed", exc_info=error, extra={"job": line.job_id})
            body = b'{"error":{"message":"Internal Server Error","code":"internal_error"}}'
            found = self._read(line.line)
            self._add(ended(self._held.record, line.line, found.custom_id, RouteAnswer(500, body)))
            return
        if (answer := task.result()) is not None:
            self._add(answer)

    def _add(self, answer: EndedLine) -> None:
        self._unsaved.append(answer)
        self._has_unsaved.set()

    def _read(self, line: int) -> InputLine:
        try:
            return self._input.read(line)
        except msgspec.DecodeError:  # the file was changed after its check
            return InputLine("", msgspec.Raw(b"{}"))

    async def _answer(self, line: BatchLine) -> EndedLine | None:
        """The answer of a line, after as many tries as it takes; ``None`` if the batch is over."""
        record, request = self._held.record, self._read(line.line)
        if (refusal := _refusal_of(request, record.kind)) is not None:
            return ended(record, line.line, request.custom_id, refusal)
        pause_s = _FIRST_RETRY_S
        while not self._is_over.is_set():
            await self._turns.wait(self._is_over)
            outcome = await self._try(line, request)
            if isinstance(outcome, EndedLine):
                self._waiting = None
                return outcome
            self._postpone(line, outcome)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s * random.uniform(0.5, 1)):
                    await self._is_over.wait()
            pause_s = min(2 * pause_s, _LAST_RETRY_S)
        return None

    async def _try(self, line: BatchLine, request: InputLine) -> EndedLine | Postponed:
        record = self._held.record
        state = {
            "caller": self._caller.id,
            "caller_info": self._caller,
            "is_known": True,
            "job_of": line.job,
        }
        body = _body_for(record.endpoint, request.body)
        answer = await call_route(self._place.app, record.endpoint, body, state)
        postponed = postponed_of(answer)
        if postponed is None and is_unknown_model(answer):
            postponed = await self._turns.missing_model(bytes(request.body))
        if postponed is not None:
            await self._forget_ended(line)
            return postponed
        if self._over is not None and answer.status == 410:
            return never_ran(record, line.line, request.custom_id, self._over)
        if line.submission is not None:
            self._turns.note(line.submission)
        return ended(record, line.line, request.custom_id, answer)

    def _postpone(self, line: BatchLine, why: Postponed) -> None:
        if self._waiting is None:
            log.info("a batch waits", extra={"batch": line.batch_id, "reason": why.code})
        self._waiting = why
        if why.code == "model_unloaded":
            self._turns.note_unloaded()
        self._has_unsaved.set()  # so that it is shown

    async def _forget_ended(self, line: BatchLine) -> None:
        """Delete the ended job of a line that is tried again; else it would have the same end."""
        with contextlib.suppress(RedisError):
            runner = self._place.services.runner
            await runner.in_thread(self._place.line_jobs.forget_now, line.job_id)

    async def _save_groups(self) -> None:
        while True:
            await self._has_unsaved.wait()
            if len(self._unsaved) < _GROUP_LINES:
                await asyncio.sleep(_GROUP_S)
            self._has_unsaved.clear()
            await self._save()

    async def _save(self) -> None:
        """Make the answers durable, then forget their jobs, then tell how far the batch is."""
        group = self._unsaved[:]
        if group:
            await self._append(group)
            del self._unsaved[: len(group)]
            self._saved.set()
            ids = [self._held.record.line_job(one.line) for one in group]
            with contextlib.suppress(RedisError):
                runner = self._place.services.runner
                await runner.in_thread(self._place.line_jobs.forget, ids)
        await self._tell(self._waiting)

    async def _append(self, group: list[EndedLine]) -> None:
        while True:
            try:
                runner = self._place.services.runner
                return await runner.in_thread(self._journal.append, group)
            except OSError as error:
                log.warning("a batch cannot be written", extra={"error": str(error)})
                await self._tell(Postponed("disk_full", f"the answers cannot be written: {error}"))
                await asyncio.sleep(_DISK_RETRY_S)

    async def _tell(self, waiting: Postponed | None) -> None:
        code, message = (waiting.code, waiting.message) if waiting else ("", "")
        await self._held.save(
            counts=self._journal.counts,
            usage=self._journal.usage,
            waiting_code=code,
            waiting_message=message,
        )

    async def _end_rest(self, end: LineEnd) -> None:
        """End the jobs that run or wait, keep what they have answered, and write off the rest."""
        reason = f"the batch has been {end.name.lower()}"
        store, runner = self._place.services.store, self._place.services.runner
        for line in self._tasks.values():
            if line.submission is not None:
                with contextlib.suppress(RedisError, JobError):
                    await runner.in_thread(store.cancel, line.job_id, reason)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_END_WAIT_S)
        self._collect()
        for task in self._tasks:
            task.cancel()
        await self._save()
        for lines in _chunks(len(self._input)):
            group = [
                never_ran(self._held.record, line, self._read(line).custom_id, end)
                for line in lines
                if not self._journal.has(line)
            ]
            await self._append(group)
            await asyncio.sleep(0)
        self._waiting = None
        await self._tell(None)


def _chunks(total: int) -> Iterator[range]:
    for first in range(1, total + 1, _REST_AT_ONCE):
        yield range(first, min(first + _REST_AT_ONCE, total + 1))


class _Flags(msgspec.Struct):
    stream: Any = None
    background: Any = None


_flags_decoder = msgspec.json.Decoder(_Flags)


def _refusal_of(request: InputLine, kind: str) -> RouteAnswer | None:
    """The answer to a line that asks for what lines cannot have."""
    try:
        flags = _flags_decoder.decode(request.body)
    except msgspec.DecodeError:
        return None  # the route names what is wrong
    name = "stream" if flags.stream else "background" if flags.background else ""
    if not name:
        return None
    error: dict[str, Any] = {
        "message": f"{name}: lines of a batch cannot have it",
        "type": "invalid_request_error",
        "param": name,
        "code": "unsupported_parameter",
    }
    if kind == "anthropic":
        return RouteAnswer(400, msgspec.json.encode({"type": "error", "error": error}))
    return RouteAnswer(400, msgspec.json.encode({"error": error}))


def _body_for(endpoint: str, body: msgspec.Raw) -> bytes:
    """The body of a line. Responses of lines are not stored: their place is the output file."""
    if endpoint != "/v1/responses":
        return bytes(body)
    value = msgspec.json.decode(body)
    return msgspec.json.encode({**value, "store": False})
