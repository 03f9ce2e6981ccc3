"""Ends jobs that have waited too long in their queue, or past their deadline.

The queues are listed at each round; the record of a job is read once, when its id first appears,
and again before the job is ended.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from jobs.contract.errors import JobError, JobTimeoutError, deadline_passed
from jobs.contract.records import JobClass, JobRecord
from jobs.platform.awake_time import AwakeTime
from jobs.storage import names
from jobs.storage.store import JobStore
from workers.supervision.recovery import Recovery

_MOST = 10_000  # jobs looked at per queue
_FLEX_TIMEOUT_S = 86400.0  # of jobs of the class batch that belong to no batch


@dataclass(frozen=True, slots=True)
class Queued:
    """A queue of a model. While its class is on hold no wait counts; ``resumed_at``: when it was
    last released, in epoch seconds.
    """

    name: str
    job_class: JobClass | None = None
    is_on_hold: bool = False
    resumed_at: float = 0.0


class Overdue:
    """``end`` is one round. ``awake``: time in which the machine slept does not count."""

    def __init__(
        self, store: JobStore, recovery: Recovery, awake: AwakeTime, queue_timeout_s: float
    ) -> None:
        self._store = store
        self._recovery = recovery
        self._awake = awake
        self._queue_timeout_s = queue_timeout_s
        self._known: dict[str, JobRecord | None] = {}

    def end(self, slugs: Collection[str]) -> float:
        """End what is overdue. Returns ``time.monotonic`` at the next one's end, or infinity."""
        found = list(self._look(slugs))
        ids = dict.fromkeys(job_id for _, waiting in found for job_id in waiting)
        self._learn(ids)
        if not ids:
            return math.inf
        now, due_s = self._store.now(), math.inf
        for queue, waiting in found:
            due_s = min(due_s, self._end_in(queue, waiting, now))
        return time.monotonic() + due_s

    def _look(self, slugs: Collection[str]) -> Iterable[tuple[Queued, list[str]]]:
        """The queues with waiting jobs, and their ids."""
        with self._store.redis.pipeline(transaction=False) as pipe:
            for slug in slugs:
                pipe.hgetall(names.hold_key(slug))
                for name in names.queues_of(slug):
                    pipe.lrange(self._store.queue(name).key, 0, _MOST - 1)
            answers = iter([_or_empty(one) for one in pipe.execute(raise_on_error=False)])
        for slug in slugs:
            holds = next(answers) or {}
            for name in names.queues_of(slug):
                ids = [one.decode(errors="replace") for one in next(answers)]
                if ids:
                    yield _queued(slug, name, holds), ids

    def _learn(self, ids: Collection[str]) -> None:
        """Read the records of new ids. What has none, or an unreadable one, has no limit."""
        new = [job_id for job_id in ids if job_id not in self._known]
        self._known = {job_id: self._known.get(job_id) for job_id in ids}
        self._known |= {record.job_id: record for record in self._store.records(new)}

    def _end_in(self, queue: Queued, waiting: Iterable[str], now: float) -> float:
        """Seconds until the next one of the queue is due."""
        records = [one for job_id in waiting if (one := self._known[job_id]) is not None]
        late = [one.job_id for one in records if self._left_s(queue, one, now) < 0]
        if late:  # one may have run since its record was read
            self._known |= {record.job_id: record for record in self._store.records(late)}
        for job_id in late:
            record = self._known[job_id]
            if record is not None and (error := self._error(queue, record, now)) is not None:
                self._recovery.end_waiting([job_id], error)
        left = [self._left_s(queue, one, now) for one in records if one.job_id not in set(late)]
        return min(left, default=math.inf)

    def _error(self, queue: Queued, record: JobRecord, now: float) -> JobError | None:
        """Why the job ends now; ``None``: it does not."""
        if self._to_deadline_s(record, now) < 0:
            return deadline_passed()
        if self._to_timeout_s(queue, record, now) < 0:
            return JobTimeoutError(f"waited in the queue for {self._limit_s(queue, record):g} s")
        return None

    def _left_s(self, queue: Queued, record: JobRecord, now: float) -> float:
        """Seconds, awake, that a job may still wait; negative if it has waited too long."""
        return min(self._to_timeout_s(queue, record, now), self._to_deadline_s(record, now))

    def _to_timeout_s(self, queue: Queued, record: JobRecord, now: float) -> float:
        if queue.is_on_hold or record.started_at is not None:
            return math.inf  # what has run before has been served
        since = max(record.created_at, queue.resumed_at)
        return self._limit_s(queue, record) - self._awake.between(since, now)

    def _limit_s(self, queue: Queued, record: JobRecord) -> float:
        if queue.job_class is None or record.batch:
            return math.inf  # a batch ends its lines itself
        return self._queue_timeout_s if queue.job_class == "interactive" else _FLEX_TIMEOUT_S

    def _to_deadline_s(self, record: JobRecord, now: float) -> float:
        if record.deadline_at is None:
            return math.inf
        allowed_s = record.deadline_at - record.created_at
        return allowed_s - self._awake.between(record.created_at, now)


def _queued(slug: str, name: str, holds: dict[bytes, bytes]) -> Queued:
    classes: dict[str, JobClass] = {
        names.generation_queue(slug): "interactive",
        names.batch_queue(slug): "batch",
    }
    job_class = classes.get(name)
    if job_class is None:
        return Queued(name)
    resumed_at = _seconds(holds.get(f"{job_class}:resumed_at".encode()))
    is_on_hold = holds.get(job_class.encode()) == b"hold"
    return Queued(name, job_class, is_on_hold, resumed_at)


def _or_empty(answer: Any) -> Any:
    """A reply of a pipeline; nothing for a key of another type."""
    if isinstance(answer, Exception):
        if not isinstance(answer, ResponseError):
            raise answer
        return ()
    return answer


def _seconds(value: bytes | None) -> float:
    try:
        return float(value or 0)
    except ValueError:
        return 0.0
