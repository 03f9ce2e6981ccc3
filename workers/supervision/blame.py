"""Who is blamed for a worker's death, and how that stays knowable (docs/adr/0011-suspects.md).

A job that brings an engine down mostly does so before its first word. So suspected are the jobs of
which the attempt had said nothing yet, if there are any. One that has been suspected comes into the
next worker alone: nobody else is let in before it has spoken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from redis.exceptions import RedisError

from jobs.contract.events import Event, EventKind
from jobs.contract.records import JobRecord
from jobs.storage import names
from jobs.storage.connection import SyncRedis, is_passing
from jobs.storage.event_log import EventWriter
from jobs.storage.fence import Fence
from workers.runtime.slots import SlotLimiter


def find_suspects(redis: SyncRedis, in_hand: Iterable[JobRecord]) -> set[str]:
    """Ids of those jobs, of all that a worker had in hand when it died, that may have killed it."""
    records = list(in_hand)
    silent = {record.job_id for record in records if not _has_spoken(redis, record)}
    return silent or {record.job_id for record in records}


def _has_spoken(redis: SyncRedis, record: JobRecord) -> bool:
    """Whether the attempt's log holds more than that it has started."""
    first = f"{record.attempt}-0"
    try:
        return len(redis.xrange(names.log_key(record.job_id), min=first, count=2)) > 1
    except RedisError as error:
        if is_passing(error):
            raise
        return False  # its log is none, so that it cannot have said anything


class BlameWriter(EventWriter):
    """An event writer that releases the slots when the job that holds it has spoken, or is over."""

    def __init__(
        self, redis: SyncRedis, log_ttl_s: int, failure_ttl_s: int, slots: SlotLimiter
    ) -> None:
        super().__init__(redis, log_ttl_s, failure_ttl_s)
        self._slots = slots

    def post(self, events: Sequence[Event]) -> Callable[[], list[bool]]:
        answers_of = super().post(events)
        return lambda: self._noted(events, answers_of())

    def _noted(self, events: Sequence[Event], answers: list[bool]) -> list[bool]:
        for event, is_written in zip(events, answers, strict=True):
            if event.kind is EventKind.CHUNK or not is_written:
                self._slots.release(event.job)
        return answers

    def settle(self, event: Event, lists: Sequence[str] = (), fence: Fence | None = None) -> bool:
        try:
            return super().settle(event, lists, fence)
        finally:  # also when Redis refuses: the engine is done with the job
            self._slots.release(event.job)
