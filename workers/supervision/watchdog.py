"""Finds workers that hang: live processes without heartbeats, or decode loops without steps.

Time without contact with Redis does not count, because heartbeats cannot arrive then.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

from jobs.contract.errors import JobError, JobTimeoutError, WorkerLostError
from jobs.contract.records import WorkerState, WorkerStatus
from jobs.storage.contact import RedisContact
from workers.supervision.worker_process import Child

_MAX_SILENCE_S = 8.0
_MAX_SILENCE_STARTING_S = 60.0  # imports, cold disk
_MAX_SILENCE_LOADING_S = 60.0  # a library may hold the GIL while it loads


@dataclass(slots=True)
class _Seen:
    token: str
    heartbeat_at: float
    max_silence_s: float


class Watchdog:
    """Checks the children at each tick. ``stall_s``: see ``Settings``."""

    def __init__(self, stall_s: float, contact: RedisContact) -> None:
        self._stall_s = stall_s
        self._contact = contact
        self._seen: dict[str, _Seen] = {}
        self._looked_at = time.monotonic()

    def look(self, slugs: Collection[str]) -> None:
        """Start a tick for those models. Call it when Redis has answered."""
        self._looked_at = time.monotonic()
        self._seen = {slug: seen for slug, seen in self._seen.items() if slug in slugs}
        if not self._contact.is_stable:
            for seen in self._seen.values():
                seen.heartbeat_at = self._looked_at

    def judge(self, child: Child, status: WorkerStatus | None) -> JobError | None:
        """The reason to kill the child, ``None`` while it works."""
        now = self._looked_at
        seen = self._seen.get(child.slug)
        if seen is None or seen.token != child.token:
            seen = self._seen[child.slug] = _Seen(child.token, now, _MAX_SILENCE_STARTING_S)
        if status is not None and status.names == child.worker_names:
            seen.heartbeat_at = now
            is_loading = status.state in (WorkerState.STARTING, WorkerState.LOADING)
            seen.max_silence_s = _MAX_SILENCE_LOADING_S if is_loading else _MAX_SILENCE_S
            if status.idle_s > self._stall_s:
                return JobTimeoutError(f"the engine made no step for {self._stall_s:g} s")
        if now - seen.heartbeat_at > seen.max_silence_s:
            return WorkerLostError("the worker of the model sent no heartbeat")
        return None
