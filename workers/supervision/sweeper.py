"""Ends jobs whose time is over, and forgets what has expired.

Jobs that wait too long, that nobody is there to read, that load or unload what is not wanted any
more; ids in the indexes whose records are gone. Each step is safe for any supervisor, at any time.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping

from redis.exceptions import RedisError

from jobs.contract.errors import (
    ContractError,
    JobNotFoundError,
    JobTimeoutError,
    ModelUnloadedError,
)
from jobs.contract.records import JobRecord
from jobs.contract.requests import Task
from jobs.settings import Settings
from jobs.storage import names
from jobs.storage.contact import RedisContact
from jobs.storage.presence import Presence
from jobs.storage.store import JobStore
from jobs.storage.totals import fold_totals
from workers.supervision.recovery import Recovery

_LEAST_S = 0.05
_HEAD = 100  # jobs looked at per queue and round; they are in the order of their age
_SECOND_LOOK_S = 1.0
_EXPIRED_AT_ONCE = 1000
_FOLD_EVERY_S = 60.0
_MANAGEMENT = (Task.LOAD, Task.UNLOAD)

log = logging.getLogger(__name__)


class Sweeper:
    """Called at each tick of the supervisor; does nothing most of the time.

    ``load_job_of(slug)`` is the job that loads what is wanted there now.
    """

    def __init__(
        self,
        store: JobStore,
        recovery: Recovery,
        settings: Settings,
        contact: RedisContact,
        load_job_of: Callable[[str], str | None],
    ) -> None:
        self._store = store
        self._recovery = recovery
        self._queue_timeout_s = settings.queue_timeout_s
        self._presence = Presence(store.redis)
        self._contact = contact
        self._load_job_of = load_job_of
        self._silent_since: dict[str, float] = {}
        self._next_overdue_at = math.inf
        self._fold_at = 0.0

    def seconds_to_next(self) -> float:
        """When the next waiting job will be overdue, as the last round saw it; asked once."""
        due_at, self._next_overdue_at = self._next_overdue_at, math.inf
        return max(due_at - time.monotonic(), _LEAST_S)

    def sweep(self, unloading: Mapping[str, str | None]) -> None:
        """One round. ``unloading``: of the models that are ours, the unload job that is awaited."""
        slugs = sorted(self._store.slugs())
        heads, control = self._look(slugs)
        self._end_overdue(heads)
        self._end_stale(control, unloading)
        self._end_orphans(slugs)
        while self._store.forget_expired(_EXPIRED_AT_ONCE) == _EXPIRED_AT_ONCE:
            pass
        self._fold_totals(slugs)

    def _look(self, slugs: list[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
        """By slug, the first job that waits for a slot, and the control jobs that wait."""
        with self._store.redis.pipeline(transaction=False) as pipe:
            for slug in slugs:
                pipe.lindex(self._store.queue(names.generation_queue(slug)).key, 0)
                control = self._store.queue(names.control_queue(slug))
                pipe.lrange(control.key, 0, _HEAD - 1)
            found = [one if not isinstance(one, Exception) else None for one in pipe.execute(False)]
        heads = {slug: _text(one) for slug, one in zip(slugs, found[::2], strict=True) if one}
        lists = zip(slugs, found[1::2], strict=True)
        return heads, {slug: [_text(one) for one in ids] for slug, ids in lists if ids}

    # Waiting too long.

    def _end_overdue(self, heads: Mapping[str, str]) -> None:
        """End jobs that have waited longer than they may; one that has run already is none."""
        if not heads:
            return
        now = self._store.now()
        limit = now - self._queue_timeout_s
        records = {record.job_id: record for record in self._store.records(list(heads.values()))}
        for slug, job_id in heads.items():
            head = records.get(job_id)
            # Behind one that was put back, or that is none of ours, others may be overdue.
            if head is None or head.started_at is not None or head.created_at < limit:
                head = self._end_overdue_of(slug, limit)
            if head is not None:
                wait_s = head.created_at - limit
                self._next_overdue_at = min(self._next_overdue_at, time.monotonic() + wait_s)

    def _end_overdue_of(self, slug: str, limit: float) -> JobRecord | None:
        """The oldest of those that may still wait."""
        queue = self._store.queue(names.generation_queue(slug))
        ids = [_text(one) for one in self._store.redis.lrange(queue.key, 0, _HEAD - 1)]
        waiting = [one for one in self._store.records(ids) if one.started_at is None]
        overdue = [record.job_id for record in waiting if record.created_at < limit]
        if overdue:
            error = JobTimeoutError(f"waited in the queue for {self._queue_timeout_s:g} s")
            self._recovery.end_waiting(overdue, error)
        left = [record for record in waiting if record.created_at >= limit]
        return min(left, key=lambda record: record.created_at, default=None)

    # Loads and unloads of desired models that are no more.

    def _end_stale(
        self, control: Mapping[str, Collection[str]], unloading: Mapping[str, str | None]
    ) -> None:
        """A desired model is written before its load job: none found here is of a newer one."""
        for slug, job_ids in control.items():
            records = [r for r in self._store.records(list(job_ids)) if r.task in _MANAGEMENT]
            if not records:
                continue
            try:
                kept = {self._load_job_of(slug)}
            except ContractError:
                continue  # the desired model cannot be read: any of them may be its
            is_ours = slug in unloading
            stale = [
                record.job_id
                for record in records
                if record.job_id not in kept
                and (record.task is Task.LOAD or (is_ours and record.job_id != unloading[slug]))
            ]
            self._recovery.end_waiting(stale, ModelUnloadedError("the model was unloaded"))

    # Without anybody to read them.

    def _end_orphans(self, slugs: Collection[str]) -> None:
        """Cancel what clients of dead API processes wait for, of all models; then forget those."""
        gone = self._gone_apis()
        if not gone:
            return
        for slug in slugs:
            ids = self._store.pending_ids(slug, queues=names.queues_of(slug))
            for record in self._store.records(ids):
                if record.owner in gone and _is_orphan(record):
                    self._cancel(record)
        self._presence.forget_apis(gone)

    def _gone_apis(self) -> set[str]:
        """API processes without a sign of life, at two looks with a second between."""
        if not self._contact.is_stable:
            self._silent_since = {}
            return set()
        now, silent = time.monotonic(), self._presence.silent_apis()
        self._silent_since = {name: self._silent_since.get(name, now) for name in silent}
        return {name for name, at in self._silent_since.items() if now - at >= _SECOND_LOOK_S}

    def _cancel(self, record: JobRecord) -> None:
        try:
            self._store.cancel(record.job_id, "the API process of its client is gone")
        except JobNotFoundError:
            return  # it has expired

    # Counters.

    def _fold_totals(self, slugs: Collection[str]) -> None:
        if time.monotonic() < self._fold_at:
            return
        self._fold_at = time.monotonic() + _FOLD_EVERY_S
        try:
            fold_totals(self._store.redis, slugs)
        except RedisError as error:
            log.warning("totals not folded", extra={"error": str(error)})


def _is_orphan(record: JobRecord) -> bool:
    is_foreground = not record.is_background and record.task not in _MANAGEMENT
    return is_foreground and not record.status.is_terminal


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
