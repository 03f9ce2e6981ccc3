"""The work on one batch from where it stands to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from api.batches.held_batch import HeldBatch
from api.batches.lines.job_ids import LineJobIds
from api.batches.lines.turns import CallerOf, Turns
from api.batches.lines.work import LineWork
from api.batches.outputs import store_outputs
from api.batches.workplace import Workplace
from api.execution.resolve import resolve
from jobs.batches.input_file import CheckedInput, InputFile, check_input
from jobs.batches.journal import Journal, LineEnd
from jobs.batches.records import MAX_LINES, MAX_MESSAGES, BatchStatus, LineCounts, LineError
from jobs.contract.errors import DiskFullError, JobError, ModelNotFoundError
from jobs.files.record import new_file_id

_DISK_RETRY_S = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _End:
    status: BatchStatus
    time_field: str


_ENDS = {
    None: _End(BatchStatus.COMPLETED, "completed_at"),
    LineEnd.CANCELLED: _End(BatchStatus.CANCELLED, "cancelled_at"),
    LineEnd.EXPIRED: _End(BatchStatus.EXPIRED, "expired_at"),
}


class BatchRun:
    """One batch that this process holds."""

    def __init__(
        self,
        place: Workplace,
        held: HeldBatch,
        caller_of: CallerOf,
        num_sharing: Callable[[], int],
    ) -> None:
        self._place = place
        self._held = held
        self._caller_of = caller_of
        self._num_sharing = num_sharing
        self._job_ids = LineJobIds(place, held)
        self._in_thread = place.services.runner.in_thread

    async def run(self) -> None:
        """Until the batch has ended, or the process stops."""
        if self._held.has_ended:
            return await self._clean()
        record = self._held.record
        # A batch of messages knows its number of lines from the beginning.
        is_new = record.counts.total == 0 or record.status is BatchStatus.VALIDATING
        if is_new and not await self._prepare():
            return await self._clean()
        input_file = await self._in_thread(InputFile, self._held.folder.input)
        journal = await self._in_thread(Journal, self._held.folder, len(input_file))
        try:
            await self._job_ids.load()
            await self._forget_saved(journal)
            await self._work(input_file, journal)
        finally:
            input_file.close()
            journal.close()
        await self._clean()

    async def _prepare(self) -> bool:
        """Check the input. False if the batch has ended with that."""
        held, now = self._held, _now()
        if held.is_cancelling.is_set():
            await held.save(status=BatchStatus.CANCELLED, cancelled_at=now)
            return False
        checked = await self._check()
        if checked.errors:
            await held.save(
                status=BatchStatus.FAILED,
                errors=checked.errors,
                failed_at=_now(),
                model=checked.model,
            )
            return False
        await held.save(
            status=BatchStatus.IN_PROGRESS,
            in_progress_at=_now(),
            model=checked.model,
            counts=LineCounts(total=checked.total),
        )
        return True

    async def _check(self) -> CheckedInput:
        record, is_openai = self._held.record, self._held.record.kind == "openai"
        check = partial(check_input, is_one_model=is_openai)
        max_lines = MAX_LINES if is_openai else MAX_MESSAGES
        checked = await self._in_thread(check, self._held.folder.input, record.endpoint, max_lines)
        if not checked.errors and is_openai:
            error = await self._model_error(checked.model)
            checked.errors += [error] if error else []
        return checked

    async def _model_error(self, model: str | None) -> LineError | None:
        """The error of a model that does not exist; one that is on disk only may come later."""
        services = self._place.services
        services = replace(services, runner=services.runner.for_caller(self._caller_of()))
        try:
            await self._held.insist_async(partial(resolve, services, None, model))
        except ModelNotFoundError as error:
            turns = self._turns(model)
            is_on_disk = model and await turns.missing_model(b"") is not None
            message = error.message
            return None if is_on_disk else LineError("model_not_found", message, 1, "body.model")
        except JobError:
            return None  # tried again with the lines
        return None

    def _turns(self, model: str | None) -> Turns:
        record = self._held.record
        return Turns(
            self._place.services, record.endpoint, model, self._caller_of, self._num_sharing
        )

    async def _forget_saved(self, journal: Journal) -> None:
        """Delete the jobs of lines that an earlier process has saved, and could not delete."""
        lines = range(1, self._held.record.counts.total + 1)
        saved = [id_ for line in lines if journal.has(line) for id_ in self._job_ids.all_of(line)]
        jobs = self._place.line_jobs
        if found := await self._held.insist(jobs.find, saved):
            await self._held.insist(jobs.forget, found)

    async def _work(self, input_file: InputFile, journal: Journal) -> None:
        turns = self._turns(self._held.record.model)
        work = LineWork(
            self._place, self._held, input_file, journal, self._caller_of, turns, self._job_ids
        )
        if await work.run():
            await self._finish(journal, work.over)

    async def _finish(self, journal: Journal, over: LineEnd | None) -> None:
        """Store the final files, and then tell that the batch has ended."""
        held, record = self._held, self._held.record
        if over is None and record.counts.expired:  # an earlier process has expired it
            over = LineEnd.EXPIRED
        await held.save(
            finalizing_at=record.finalizing_at or _now(),
            planned_output_id=record.planned_output_id or new_file_id(),
            planned_error_id=record.planned_error_id or new_file_id(),
            counts=journal.counts,
            usage=journal.usage,
            **({} if held.is_cancelling.is_set() else {"status": BatchStatus.FINALIZING}),
        )
        if held.is_cancelling.is_set():
            over = LineEnd.CANCELLED
        output_id, error_id = await self._store_outputs(journal)
        end = _ENDS[over]
        await held.save(
            status=end.status,
            output_file_id=output_id,
            error_file_id=error_id,
            waiting_code="",
            waiting_message="",
            **{end.time_field: _now()},
        )

    async def _store_outputs(self, journal: Journal) -> tuple[str | None, str | None]:
        held = self._held
        while True:
            args = (self._place.services.files, held.folder, held.record, journal, _now())
            try:
                return await held.insist(store_outputs, *args)
            except (OSError, DiskFullError) as error:
                log.warning("a batch cannot be finalized", extra={"error": str(error)})
                message = f"the output cannot be written: {error}"
                await held.save(waiting_code="disk_full", waiting_message=message)
                await asyncio.sleep(_DISK_RETRY_S)

    async def _clean(self) -> None:
        """Remove what a batch that has ended does not need."""
        if not self._held.has_ended:
            return
        with contextlib.suppress(OSError):
            await self._in_thread(self._held.folder.drop_journals)


def _now() -> int:
    return int(time.time())
