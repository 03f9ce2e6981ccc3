"""Makes the answers of lines durable, in groups, and tells how far the batch is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from redis.exceptions import RedisError

from api.batches.held_batch import HeldBatch
from api.batches.lines.answers import ON_HOLD, Postponed
from api.batches.lines.job_ids import LineJobIds
from api.batches.workplace import Workplace
from jobs.batches.journal import EndedLine, Journal

_GROUP_S = 0.25  # answers of this time are synced together
_GROUP_LINES = 64
_MAX_UNSAVED, _MAX_UNSAVED_BYTES = 512, 32 * 1024 * 1024  # while the disk is slow, or full
_DISK_RETRY_S = 5.0

log = logging.getLogger(__name__)


class LineSaver:
    """Answers in the order in which they came: to the disk; then their jobs are forgotten.

    ``waiting`` is what the batch waits for, shown with its progress.
    """

    def __init__(
        self, place: Workplace, held: HeldBatch, journal: Journal, job_ids: LineJobIds
    ) -> None:
        self._place = place
        self._job_ids = job_ids
        self._held = held
        self._journal = journal
        self._in_thread = place.services.runner.in_thread
        self._unsaved: list[EndedLine] = []
        self._num_unsaved_bytes = 0
        self._has_news = asyncio.Event()
        self._saving = asyncio.Lock()
        self.waiting: Postponed | None = None
        self.has_room = asyncio.Event()
        self.has_room.set()

    def add(self, answer: EndedLine) -> None:
        """Take an answer; it is saved soon."""
        self._unsaved.append(answer)
        self._num_unsaved_bytes += len(answer.answer)
        is_full = self._num_unsaved_bytes >= _MAX_UNSAVED_BYTES
        if is_full or len(self._unsaved) >= _MAX_UNSAVED:
            self.has_room.clear()
        self._has_news.set()

    def note(self, waiting: Postponed | None) -> None:
        """What the batch waits for has changed."""
        if waiting != self.waiting:
            self.waiting = waiting
            self._has_news.set()

    def note_hold(self, hold: Postponed | None) -> None:
        """Somebody holds the model's queue, or does not any more."""
        if hold is not None and self.waiting is None:
            self.note(hold)
        elif hold is None and self.waiting is not None and self.waiting.code == ON_HOLD:
            self.note(None)

    async def run(self) -> None:
        """Save what comes, for ever."""
        while True:
            await self._has_news.wait()
            if len(self._unsaved) < _GROUP_LINES:
                await asyncio.sleep(_GROUP_S)
            self._has_news.clear()
            await self.save()

    async def save(self) -> None:
        """Save all answers so far, and tell."""
        async with self._saving:
            group = self._unsaved[:]
            await self._append(group)
            del self._unsaved[: len(group)]
            self._num_unsaved_bytes -= sum(len(one.answer) for one in group)
            self.has_room.set()
            await self._forget(group)
            await self._tell(self.waiting)

    async def write_off(self, group: list[EndedLine]) -> None:
        """Save lines that never ran."""
        async with self._saving:
            await self._append(group)

    async def _append(self, group: list[EndedLine]) -> None:
        while group:
            try:
                return await self._in_thread(self._journal.append, group)
            except OSError as error:
                facts = {"batch": self._held.record.id, "error": str(error)}
                log.warning("the answers of a batch cannot be written", extra=facts)
                await self._tell(Postponed("disk_full", f"the answers cannot be written: {error}"))
                await asyncio.sleep(_DISK_RETRY_S)

    async def _forget(self, group: Iterable[EndedLine]) -> None:
        """Delete the jobs of saved lines; what fails is tried again with the next group."""
        ids = [self._job_ids.of(one.line) for one in group]
        with contextlib.suppress(RedisError):
            await self._in_thread(self._place.line_jobs.forget, ids)

    async def _tell(self, waiting: Postponed | None) -> None:
        code, message = (waiting.code, waiting.message) if waiting else ("", "")
        await self._held.save(
            counts=self._journal.counts,
            usage=self._journal.usage,
            waiting_code=code,
            waiting_message=message,
        )
