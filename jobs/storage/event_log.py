"""The event logs of jobs. Each event goes to a Redis stream and a pub/sub channel in one step.

All writes use Lua scripts, which refuse events of stale attempts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from redis.exceptions import ResponseError

from jobs.contract.errors import ErrorInfo
from jobs.contract.events import BEFORE_ALL, Event, EventId, EventKind, decode_event, encode_event
from jobs.contract.records import JobStatus
from jobs.storage import names
from jobs.storage.connection import AsyncRedis, SyncRedis
from jobs.storage.fence import Fence, checked
from jobs.storage.lua import job_scripts
from jobs.storage.script_connection import PendingReply, ScriptConnection
from jobs.storage.totals import amounts_of

_STATUS = {
    EventKind.FINISHED: JobStatus.FINISHED,
    EventKind.FAILED: JobStatus.FAILED,
    EventKind.CANCELLED: JobStatus.CANCELLED,
}


class EventWriter:
    """Writes events of any job. Calls may be repeated after a lost reply."""

    def __init__(self, redis: SyncRedis, log_ttl_s: int, failure_ttl_s: int) -> None:
        self._redis = redis
        self._append = ScriptConnection(redis, job_scripts.APPEND)
        self._settle = redis.register_script(job_scripts.SETTLE)
        self._log_ttl_s = log_ttl_s
        self._failure_ttl_s = failure_ttl_s

    def append(self, events: Sequence[Event]) -> list[bool]:
        """Write non-terminal events in order. False for each event of a stale attempt."""
        return [bool(answer) for answer in self.send(events).wait()]

    def send(self, events: Sequence[Event]) -> PendingReply:
        """Like ``append``, but without waiting. The reply has one number per event, 0 if stale.

        Events of the same jobs on other connections may overtake these until the reply is read.
        """
        keys: list[str] = []
        args: list[str | bytes | int] = []
        for event in events:
            keys += (names.job_key(event.job), names.log_key(event.job))
            args += (event.attempt, event.seq, names.event_channel(event.job), encode_event(event))
        return self._append.send(keys, args)

    def settle(self, event: Event, lists: Sequence[str] = (), fence: Fence | None = None) -> bool:
        """Write the terminal event. False when the job already has another one.

        The job then leaves ``lists``: its queue and RQ's intermediate list. With a ``fence`` (which
        needs lists), raises ``OwnershipLostError`` unless its owner holds the model.
        """
        assert fence is None or len(lists) == 2
        ttl = self._log_ttl_s if event.kind == EventKind.FINISHED else self._failure_ttl_s
        job = event.job
        answer = self._settle(
            keys=[
                names.job_key(job),
                names.log_key(job),
                names.request_key(job),
                names.LIVE,
                names.JOB_EXPIRY,
                names.TOTALS,
                *lists,
                *([fence.key] if fence is not None else ()),
            ],
            args=[
                event.attempt,
                event.seq,
                _STATUS[event.kind].value,
                encode_event(event),
                names.event_channel(job),
                ttl,
                event.error.code if event.error else "",
                job,
                fence.owner if fence is not None else "",
                *amounts_of(event),
            ],
        )
        return checked(answer)

    def settle_unowned(
        self,
        job_id: str,
        attempt: int,
        kind: EventKind,
        error: ErrorInfo,
        lists: Sequence[str] = (),
    ) -> bool:
        """End a job that no worker runs: it never started, or its worker is dead."""
        last = last_event_id(self._redis, job_id)
        event = Event(
            job=job_id, attempt=attempt, seq=last.seq + 1, kind=kind, t=time.time(), error=error
        )
        return self.settle(event, lists)


def last_event_id(redis: SyncRedis, job_id: str) -> EventId:
    """Id of the newest event, ``BEFORE_ALL`` when the log is empty or not a stream."""
    try:
        newest = redis.xrevrange(names.log_key(job_id), count=1)
    except ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        return BEFORE_ALL  # ``SETTLE`` replaces the key
    return EventId.parse(newest[0][0].decode()) if newest else BEFORE_ALL


def read_log(redis: SyncRedis, job_id: str, after: EventId = BEFORE_ALL) -> list[Event]:
    """All events after ``after``, in order."""
    return _decode(redis.xrange(names.log_key(job_id), min=f"({after}"))


async def read_log_async(
    redis: AsyncRedis, job_id: str, after: EventId = BEFORE_ALL, count: int | None = None
) -> list[Event]:
    """The events after ``after``, in order; at most ``count``."""
    return _decode(await redis.xrange(names.log_key(job_id), min=f"({after}", count=count))


def _decode(entries: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> list[Event]:
    return [decode_event(fields.get(b"e", b"")) for _, fields in entries]
