"""Finds workers that hang: no heartbeat though the process lives, or a decode loop without steps.

Time in which Redis could not be asked does not count: a worker must not die of our blindness.
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
_MAX_SILENCE_STARTING_S = 60.0  # imports and a cold disk
_MAX_SILENCE_LOADING_S = 60.0  # a library may hold the interpreter while it loads


@dataclass(slots=True)
class _Seen:
    token: str
    heartbeat_at: float
    max_silence_s: float


class Watchdog:
    """Judges the children at each tick. ``stall_s``: see ``Settings``."""

    def __init__(self, stall_s: float, contact: RedisContact) -> None:
        self._stall_s = stall_s
        self._contact = contact
        self._seen: dict[str, _Seen] = {}
        self._looked_at = time.monotonic()

    def look(self, slugs: Collection[str]) -> None:
        """Begin a tick over those models; call it when Redis has answered."""
        self._looked_at = time.monotonic()
        self._seen = {slug: seen for slug, seen in self._seen.items() if slug in slugs}
        if not self._contact.is_stable:
            for seen in self._seen.values():
                seen.heartbeat_at = self._looked_at

    def judge(self, child: Child, status: WorkerStatus | None) -> JobError | None:
        """Why the child has to be killed; ``None`` while it is fine."""
        now = self._looked_at
        seen = self._seen.get(child.slug)
        if seen is None or seen.token != child.token:
            seen = self._seen[child.slug] = _Seen(child.token, now, _MAX_SILENCE_STARTING_S)
        if status is not None and status.names == child.worker_names:
            seen.heartbeat_at = now
            is_loading = status.state in (WorkerState.STARTING, WorkerState.LOADING)
            seen.max_silence_s = _MAX_SILENCE_LOADING_S if is_loading else _MAX_SILENCE_S
            if status.idle_s > self._stall_s:
                return JobTimeoutError(f"the engine has not moved for {self._stall_s:g} s")
        if now - seen.heartbeat_at > seen.max_silence_s:
            return WorkerLostError("the worker of the model gave no sign of life")
        return None
