"""Ends waiting jobs in bulk, and deletes what has expired (docs/adr/0021-sleep.md)."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from rq import Queue
from rq.job import Job

from jobs.contract.errors import ErrorInfo, JobCancelledError
from jobs.contract.events import Event, EventKind, encode_event
from jobs.contract.records import JobClass, JobRecord, JobStatus
from jobs.contract.requests import Task
from jobs.storage import names
from jobs.storage.connection import SyncRedis
from jobs.storage.lua import job_scripts

if TYPE_CHECKING:
    from jobs.storage.store import JobStore

_PAUSE_S = 5  # between two calls that come each second: sleep, or no supervisor
_AT_ONCE = 100


INTERACTIVE: tuple[JobClass, ...] = ("interactive",)


class Purger:
    """Cancels old generations, or counts them. Calls may be repeated."""

    def __init__(self, store: JobStore, ttl_s: int) -> None:
        self._store = store
        self._ttl_s = ttl_s
        self._script = store.redis.register_script(job_scripts.PURGE)

    def purge(
        self, slug: str, older_than_s: float, classes: Collection[JobClass]
    ) -> tuple[int, int]:
        """Cancel those that ``old`` finds. Returns how many were (waiting, running)."""
        old = self.old(slug, older_than_s, classes)
        reason = f"purged: older than {older_than_s:g} s"
        ended = self.end(old, reason)
        num_queued, num_running = len(ended), 0
        for record in old:
            if record.job_id not in ended:
                self._store.cancel(record.job_id, reason)
                num_queued += record.status is JobStatus.QUEUED
                num_running += record.status is JobStatus.RUNNING
        return num_queued, num_running

    def old(self, slug: str, older_than_s: float, classes: Collection[JobClass]) -> list[JobRecord]:
        """The generations of those classes that have not ended and are older."""
        limit = self._store.now() - older_than_s
        ids = self._store.pending_ids(slug, queues=names.queues_of(slug))
        return [
            record
            for record in self._store.records(ids)
            if record.task is Task.GENERATE
            and record.job_class in classes
            and record.created_at < limit
            and not record.status.is_terminal
        ]

    def end(self, records: Iterable[JobRecord], reason: str) -> set[str]:
        """Cancel the jobs that no worker has taken yet and return their ids. Skip all others."""
        untouched: dict[str, list[str]] = {}
        for record in records:
            if record.status is JobStatus.QUEUED and not record.attempt:
                untouched.setdefault(record.queue, []).append(record.job_id)
        ended: set[str] = set()
        for name, ids in untouched.items():
            queue = self._store.queue(name)
            for start in range(0, len(ids), _AT_ONCE):
                ended |= self._end_some(queue, ids[start : start + _AT_ONCE], reason)
        return ended

    def _end_some(self, queue: Queue, job_ids: Sequence[str], reason: str) -> set[str]:
        error = ErrorInfo(JobCancelledError.code, reason)
        keys: list[str] = [queue.key, names.LIVE, names.JOB_EXPIRY, names.TOTALS]
        args: list[str | bytes | int] = [reason, error.code, self._ttl_s]
        for job_id in job_ids:
            keys += [names.job_key(job_id), names.log_key(job_id), names.request_key(job_id)]
            keys += [Job.key_for(job_id)]
            args += [job_id, names.event_channel(job_id), _first_and_last(job_id, error)]
        answers = self._script(keys=keys, args=args)
        return {job_id for job_id, answer in zip(job_ids, answers, strict=True) if answer}


class Expiry:
    """Called each second. A pause between two calls, of whichever supervisor, does not count."""

    def __init__(self, redis: SyncRedis) -> None:
        self._script = redis.register_script(job_scripts.FORGET_EXPIRED)

    def forget(self, at_most: int = 1000) -> int:
        """Delete what has expired, ``at_most`` of each kind. Returns how many were deleted."""
        of_job = [names.job_key(""), names.log_key(""), names.request_key(""), Job.key_for("")]
        return int(
            self._script(
                keys=[
                    names.LAST_EXPIRY,
                    names.JOB_EXPIRY,
                    names.RESPONSE_EXPIRY,
                    names.JOB_INDEX,
                    names.LIVE,
                ],
                args=[at_most, _PAUSE_S, len(of_job), *of_job, names.response_key("")],
            )
        )


def _first_and_last(job_id: str, error: ErrorInfo) -> bytes:
    """The encoded event that is the first and last of a job that never ran."""
    return encode_event(
        Event(job=job_id, attempt=0, seq=1, kind=EventKind.CANCELLED, t=time.time(), error=error)
    )
