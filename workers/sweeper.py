"""Ends jobs whose time is over: waiting too long, or without anybody to read their answer."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping

from redis.exceptions import RedisError

from jobs import names
from jobs.errors import JobNotFoundError, JobTimeoutError
from jobs.presence import Presence
from jobs.records import JobRecord
from jobs.settings import Settings
from jobs.store import JobStore
from workers.child import Child
from workers.undertaker import Undertaker

_LEAST_S = 0.05
_HEAD = 100  # jobs looked at per queue and round; they are in the order of their age

log = logging.getLogger(__name__)


class Sweeper:
    """Called at each tick of the supervisor; does nothing most of the time."""

    def __init__(self, store: JobStore, undertaker: Undertaker, settings: Settings) -> None:
        self._store = store
        self._undertaker = undertaker
        self._queue_timeout_s = settings.queue_timeout_s
        self._presence = Presence(store.redis)
        self._suspects: set[str] = set()
        self._next_overdue_at = math.inf

    def seconds_to_next(self) -> float:
        """When the next waiting job will be overdue, as the last round saw it; asked once."""
        due_at, self._next_overdue_at = self._next_overdue_at, math.inf
        return max(due_at - time.time(), _LEAST_S)

    def sweep(self, children: Mapping[str, Child]) -> None:
        """One round over the queues of these workers."""
        for slug in children:
            self._next_overdue_at = min(self._next_overdue_at, self._end_overdue(slug))
        gone = self._gone_apis()
        if gone:
            for child in children.values():
                self._cancel_orphans(child, gone)
            self._presence.forget_apis(gone)

    def _end_overdue(self, slug: str) -> float:
        """End jobs that have waited longer than they may; return when the next one will have.

        One that has run already is none of them.
        """
        queue = self._store.queue(names.generation_queue(slug))
        ids = [job_id.decode() for job_id in self._store.redis.lrange(queue.key, 0, _HEAD - 1)]
        limit = time.time() - self._queue_timeout_s
        waiting = [r for r in self._store.records(ids) if r.started_at is None]
        overdue = [record.job_id for record in waiting if record.created_at < limit]
        if overdue:
            error = JobTimeoutError(f"waited in the queue for {self._queue_timeout_s:g} s")
            self._undertaker.end_waiting(slug, overdue, error)
        oldest = min((r.created_at for r in waiting if r.created_at >= limit), default=math.inf)
        return oldest + self._queue_timeout_s

    def _gone_apis(self) -> set[str]:
        """API processes without a sign of life, found twice: Redis may have been away."""
        silent = self._presence.silent_apis()
        gone, self._suspects = silent & self._suspects, silent
        return gone

    def _cancel_orphans(self, child: Child, gone: set[str]) -> None:
        ids = self._store.pending_ids(child.slug, child.worker_names)
        for record in self._store.records(ids):
            if record.owner in gone and not record.is_background and not record.status.is_terminal:
                self._cancel(record)

    def _cancel(self, record: JobRecord) -> None:
        try:
            self._store.cancel(record.job_id, "the API process of its client is gone")
        except (JobNotFoundError, RedisError) as error:
            log.warning("orphan left", extra={"job": record.job_id, "error": str(error)})
