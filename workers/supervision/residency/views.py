"""What the planner is told about each model: gathered from Redis, children and estimates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from jobs.contract.records import DesiredModel, WorkerState, WorkerStatus
from jobs.storage.residency.parking import Demand
from workers.supervision.residency.model_view import ModelView, Phase
from workers.supervision.worker_process import Child

_LOAD_PATIENCE_S = 60.0
_SETTLING_S = 2.0  # after a load; that its job was taken is no use of the model


@dataclass(frozen=True, slots=True)
class Need:
    """The memory that a model needs at least, in bytes, and whether that is only a guess.

    With ``wish_bytes`` it can keep as many prompts as it may.
    """

    num_bytes: int = 0
    is_guess: bool = False
    wish_bytes: int = 0


NeedOf = Callable[[DesiredModel], Need]


@dataclass(slots=True)
class _Track:
    """Times of this process' clock: without a process, ready, last in use, last in use by an
    interactive job, load progress.
    """

    absent_since: float
    ready_since: float = 0.0
    used_at: float = 0.0
    asked_at: float = -math.inf
    progress: float | None = None
    progress_at: float = 0.0


class Views:
    """Remembers since when each model is absent, ready, unused, or loads without progress."""

    def __init__(self, need_of: NeedOf) -> None:
        self._need_of = need_of
        self._tracks: dict[str, _Track] = {}

    def keep_only(self, slugs: set[str]) -> None:
        """Forget all models but these."""
        self._tracks = {slug: track for slug, track in self._tracks.items() if slug in slugs}

    def view(
        self,
        slug: str,
        desired: DesiredModel,
        child: Child | None,
        status: WorkerStatus | None,
        demand: Demand,
        *,
        may_start: bool,
        now: float,
        redis_now: float,
    ) -> ModelView:
        """The model now. ``now``: this process' clock, ``redis_now``: that of ``demand``."""
        track = self._tracks.setdefault(slug, _Track(absent_since=now))
        phase = _phase_of(child, desired, status)
        self._note(track, phase, status, demand, now)
        self._note_asked(track, phase, status, demand, desired, now)

        def since(oldest_at: float | None, num_held: int) -> float | None:
            found = None if oldest_at is None else now - max(0.0, redis_now - oldest_at)
            if phase is Phase.ABSENT and (num_held or found is not None):
                # What a dead worker held waits, too: the next one's start returns it to the queue.
                return max(found or track.absent_since, track.absent_since)
            return found

        need = self._need_of(desired) if child is None else Need(child.reservation.num_bytes)
        return ModelView(
            slug=slug,
            phase=phase,
            need_bytes=need.num_bytes,
            is_guess=need.is_guess,
            is_busy=demand.num_held > 0,
            is_wanted=not desired.is_parked,
            waiting_since=since(demand.oldest_at, demand.num_held),
            is_batch_busy=demand.num_batch_held > 0,
            batch_since=since(demand.batch_oldest_at, demand.num_batch_held),
            has_frozen=demand.has_frozen,
            idle_since=track.used_at,
            interactive_at=track.asked_at,
            ready_since=track.ready_since,
            is_pinned=desired.pinned,
            priority=desired.priority,
            is_auto=desired.origin == "auto",
            ttl_s=desired.ttl_s,
            may_start=may_start,
            is_stalled=now - track.progress_at >= _LOAD_PATIENCE_S,
        )

    def _note(
        self,
        track: _Track,
        phase: Phase,
        status: WorkerStatus | None,
        demand: Demand,
        now: float,
    ) -> None:
        if phase is not Phase.ABSENT:
            track.absent_since = now
        if phase is not Phase.READY:
            track.ready_since = track.used_at = now
        has_jobs = demand.num_held or demand.num_batch_held
        is_awaited = demand.oldest_at is not None or demand.batch_oldest_at is not None
        if has_jobs or is_awaited or status is None:
            track.used_at = now
        elif phase is Phase.READY:
            track.used_at = now - status.unused_s
        progress = status.load_fraction if status is not None else None
        if phase is not Phase.LOADING or progress != track.progress or not track.progress_at:
            track.progress, track.progress_at = progress, now

    def _note_asked(
        self,
        track: _Track,
        phase: Phase,
        status: WorkerStatus | None,
        demand: Demand,
        desired: DesiredModel,
        now: float,
    ) -> None:
        """A person's load counts as their use of the model, one for a batch does not."""
        if demand.num_held or demand.oldest_at is not None:
            track.asked_at = now
        elif phase is Phase.READY and status is not None:
            unused_s = status.interactive_unused_s
            asked_at = now - (status.unused_s if unused_s is None else unused_s)
            if desired.origin == "explicit" or asked_at > track.ready_since + _SETTLING_S:
                track.asked_at = max(track.asked_at, asked_at)


def _phase_of(child: Child | None, desired: DesiredModel, status: WorkerStatus | None) -> Phase:
    if child is None:
        return Phase.ABSENT
    if child.is_leaving or desired.is_parked or child.desired.uid != desired.uid:
        return Phase.LEAVING
    is_its = status is not None and status.names == child.worker_names
    if not is_its or status is None or status.state is not WorkerState.READY:
        return Phase.LOADING
    return Phase.READY
