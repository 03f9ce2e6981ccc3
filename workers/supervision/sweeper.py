"""Ends overdue, stale and orphaned jobs, and deletes expired ones.

Overdue jobs waited too long. Stale jobs load or unload a model that is not desired any more.
Orphaned jobs have lost their reader. Any supervisor may do each step at any time.
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
    ModelUnloadedError,
)
from jobs.contract.records import JobRecord
from jobs.contract.requests import Task
from jobs.platform.awake_time import AwakeTime
from jobs.settings import Settings
from jobs.storage import names
from jobs.storage.contact import RedisContact
from jobs.storage.presence import Presence
from jobs.storage.purger import Expiry
from jobs.storage.store import JobStore
from jobs.storage.totals import fold_totals
from workers.supervision.recovery import Recovery
from workers.supervision.sweeps.overdue import Overdue

_LEAST_S = 0.05
_HEAD = 100  # loads and unloads checked per model and round; the oldest are first
_SECOND_LOOK_S = 1.0
_EXPIRED_AT_ONCE = 1000
_FOLD_EVERY_S = 60.0
_MANAGEMENT = (Task.LOAD, Task.UNLOAD)

log = logging.getLogger(__name__)


class Sweeper:
    """Called at each tick of the supervisor.

    ``load_job_of(slug)`` is the id of the desired model's load job.
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
        self._presence = Presence(store.redis)
        self._expiry = Expiry(store.redis)
        self._contact = contact
        self._load_job_of = load_job_of
        self._awake = AwakeTime()
        self._overdue = Overdue(store, recovery, self._awake, settings.queue_timeout_s)
        self._silent_since: dict[str, float] = {}
        self._next_overdue_at = math.inf
        self._fold_at = 0.0

    def seconds_to_next(self) -> float:
        """Seconds until the next job is overdue, by the last round. Infinite at a second call."""
        due_at, self._next_overdue_at = self._next_overdue_at, math.inf
        return max(due_at - time.monotonic(), _LEAST_S)

    def sweep(self, unloading: Mapping[str, str | None]) -> None:
        """Do one round. ``unloading``: unload job ids of the models that this process owns."""
        self._awake.note(time.time())
        slugs = sorted(self._store.slugs())
        control = self._look(slugs)
        self._next_overdue_at = min(self._next_overdue_at, self._overdue.end(slugs))
        self._end_stale(control, unloading)
        self._end_orphans(slugs)
        while self._expiry.forget(_EXPIRED_AT_ONCE) >= _EXPIRED_AT_ONCE:
            pass
        self._fold_totals(slugs)

    def _look(self, slugs: list[str]) -> dict[str, list[str]]:
        """The ids on the control queues, by slug."""
        with self._store.redis.pipeline(transaction=False) as pipe:
            for slug in slugs:
                pipe.lrange(self._store.queue(names.control_queue(slug)).key, 0, _HEAD - 1)
            found = [one if not isinstance(one, Exception) else () for one in pipe.execute(False)]
        lists = zip(slugs, found, strict=True)
        return {slug: [_text(one) for one in ids] for slug, ids in lists if ids}

    # Stale loads and unloads.

    def _end_stale(
        self, control: Mapping[str, Collection[str]], unloading: Mapping[str, str | None]
    ) -> None:
        """End loads and unloads of models that are not desired any more.

        A desired model is written before its load job is queued. So a job that was listed before
        ``load_job_of`` is called cannot belong to a newer model.
        """
        for slug, job_ids in control.items():
            records = [r for r in self._store.records(list(job_ids)) if r.task in _MANAGEMENT]
            if not records:
                continue
            try:
                kept = {self._load_job_of(slug)}
            except ContractError:
                continue  # the entry is unreadable: any of these jobs may belong to it
            is_ours = slug in unloading
            stale = [
                record.job_id
                for record in records
                if record.job_id not in kept
                and (record.task is Task.LOAD or (is_ours and record.job_id != unloading[slug]))
            ]
            self._recovery.end_waiting(stale, ModelUnloadedError("the model was unloaded"))

    # Orphaned jobs.

    def _end_orphans(self, slugs: Collection[str]) -> None:
        """Cancel the foreground jobs of dead API processes, then forget these processes."""
        gone = self._gone_apis()
        if not gone:
            return
        for slug in slugs:
            ids = self._store.pending_ids(slug, queues=names.queues_of(slug))
            for record in self._store.records(ids):
                if record.owner in gone and _is_orphan(record):
                    self._end_orphan(record)
        self._presence.forget_apis(gone)

    def _gone_apis(self) -> set[str]:
        """API processes without a heartbeat in two checks, at least a second apart."""
        if not self._contact.is_stable:
            self._silent_since = {}
            return set()
        now, silent = time.monotonic(), self._presence.silent_apis()
        self._silent_since = {name: self._silent_since.get(name, now) for name in silent}
        return {name for name, at in self._silent_since.items() if now - at >= _SECOND_LOOK_S}

    def _end_orphan(self, record: JobRecord) -> None:
        reader = self._presence.reader_of(record.job_id)
        if reader is not None:
            self._store.adopt(record.job_id, reader)
        else:
            self._cancel(record)

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
