"""The ids of the jobs of a batch's lines: a new one whenever a line is run again."""

from __future__ import annotations

import logging

from redis.exceptions import RedisError

from api.batches.held_batch import HeldBatch
from api.batches.workplace import Workplace

log = logging.getLogger(__name__)


class LineJobIds:
    """Which run of each line is the current one. Redis has these numbers for the next process.

    An id is never used again: requests that concern its first job may arrive late, and would then
    concern the second.
    """

    def __init__(self, place: Workplace, held: HeldBatch) -> None:
        self._place = place
        self._held = held
        self._runs: dict[int, int] = {}

    async def load(self) -> None:
        """Read what earlier processes have begun."""
        self._runs = await self._held.insist(self._place.line_jobs.runs, self._held.record.id)

    def of(self, line: int) -> str:
        """The id of the line's current job."""
        return self._held.record.line_job(line, self._runs.get(line, 0))

    def all_of(self, line: int) -> list[str]:
        """Those of all jobs that the line has had."""
        last = self._runs.get(line, 0)
        return [self._held.record.line_job(line, run) for run in range(last + 1)]

    async def renew(self, line: int) -> None:
        """Give the line, whose job has ended, another; while Redis fails it keeps its own."""
        jobs, former, run = self._place.line_jobs, self.of(line), self._runs.get(line, 0) + 1
        in_thread = self._place.services.runner.in_thread
        try:
            await in_thread(jobs.note_run, self._held.record.id, line, run)
            self._runs[line] = run
            await in_thread(jobs.forget, [former])
        except RedisError as error:
            log.warning("a line waits for Redis", extra={"job": former, "error": str(error)})
