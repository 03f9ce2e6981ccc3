"""Finds workers that hang: live processes without heartbeats, or decode loops without steps.

Time without contact with Redis does not count, because heartbeats cannot arrive then. A model on a
GPU that another busy model uses may get no time on it for long: it has longer, and its jobs are
tried again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
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
    shared_at: float = -math.inf  # when another model was last seen to use its GPU


class StalledOnGpuError(WorkerLostError):
    """The engine made no step, perhaps because of another model on the same GPU."""


class Watchdog:
    """Checks the children at each tick. ``stall_s``, ``gpu_stall_s``: see ``Settings``."""

    def __init__(self, stall_s: float, gpu_stall_s: float, contact: RedisContact) -> None:
        self._stall_s = stall_s
        self._gpu_stall_s = max(stall_s, gpu_stall_s)
        self._contact = contact
        self._seen: dict[str, _Seen] = {}
        self._on_gpu: set[str] = set()
        self._looked_at = time.monotonic()

    def look(self, slugs: Collection[str], statuses: Mapping[str, WorkerStatus]) -> None:
        """Start a tick for those models of this machine. Call it when Redis has answered."""
        self._looked_at = time.monotonic()
        self._on_gpu = {slug for slug, status in statuses.items() if _may_use_gpu(status)}
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
            return self._judge_stall(child, seen, status)
        if now - seen.heartbeat_at > seen.max_silence_s:
            return WorkerLostError("the worker of the model sent no heartbeat")
        return None

    def _judge_stall(self, child: Child, seen: _Seen, status: WorkerStatus) -> JobError | None:
        if status.is_on_gpu and self._on_gpu - {child.slug}:
            seen.shared_at = self._looked_at
        shared_s_ago = self._looked_at - seen.shared_at
        if shared_s_ago > status.idle_s:  # nobody else since its last step
            is_stalled = status.idle_s > self._stall_s
            message = f"the engine made no step for {self._stall_s:g} s"
            return JobTimeoutError(message) if is_stalled else None
        if shared_s_ago > self._stall_s or status.idle_s > self._gpu_stall_s:
            message = f"the engine made no step for {status.idle_s:.0f} s on a GPU that is shared"
            return StalledOnGpuError(message)
        return None


def _may_use_gpu(status: WorkerStatus) -> bool:
    """Whether the worker computes on a GPU now. While it loads, it does not say where it will."""
    is_busy = status.is_on_gpu and status.running > 0
    return is_busy or status.state is WorkerState.LOADING
