"""Does what the plan says: parks, closes, starts and refuses models, and ends overdue waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from jobs.contract.errors import InsufficientMemoryError, JobError, NoRoomError
from jobs.contract.records import DesiredModel, WorkerStatus
from jobs.settings import Settings
from jobs.storage.desired_models import DesiredSnapshot
from workers.supervision.claimant import Claimant
from workers.supervision.crash_policy import CrashPolicy
from workers.supervision.residency.planner import Refusal
from workers.supervision.residency.residency import Outlook, Residency
from workers.supervision.restarts import RestartPolicy
from workers.supervision.worker_process import Child, Reservation

Start = Callable[[str, DesiredModel, Reservation], None]
Guarded = Callable[[Callable[[], object]], bool]


class PlanFollower:
    """Called once per tick. ``start(slug, desired, reservation)`` starts a worker.

    ``guarded`` runs one step and logs its errors, so that a failure concerns one model only.
    """

    def __init__(
        self,
        residency: Residency,
        claimant: Claimant,
        crash_policy: CrashPolicy,
        restarts: RestartPolicy,
        settings: Settings,
        start: Start,
        guarded: Guarded,
    ) -> None:
        self._residency = residency
        self._claimant = claimant
        self._crash_policy = crash_policy
        self._restarts = restarts
        self._settings = settings
        self._start = start
        self._guarded = guarded

    def follow(
        self,
        snapshot: DesiredSnapshot,
        children: Mapping[str, Child],
        statuses: Mapping[str, WorkerStatus],
        *,
        is_alone: bool,
    ) -> None:
        """Plan for the models as they are now, and take the steps of the plan."""
        desired = snapshot.desired_models
        missing = {
            slug: model
            for slug, model in desired.items()
            if slug not in children and self._restarts.may_start(slug)
        }
        startable = self._claimant.loadable(missing)
        outlook = self._residency.look(snapshot, children, statuses, startable, is_alone=is_alone)
        for slug in outlook.plan.close:
            self._guarded(partial(self._residency.close, children[slug]))
        for child in children.values():
            if child.is_closed and child.is_running and child.slug not in outlook.plan.close:
                self._guarded(partial(self._residency.hand_back_batch, child))
        for child in self._parkable(outlook, children):
            self._guarded(partial(self._residency.park, child, self._settings.grace_s))
        for slug in outlook.plan.start:
            self._guarded(partial(self._start_here, slug, desired[slug]))
        self._end_waits(outlook, desired, is_alone=is_alone)

    def _parkable(self, outlook: Outlook, children: Mapping[str, Child]) -> list[Child]:
        closed = [child for child in children.values() if child.is_closed and child.is_running]
        return [children[slug] for slug in outlook.plan.park] + closed

    def _start_here(self, slug: str, desired: DesiredModel) -> None:
        if not self._claimant.take([slug]):
            self._residency.note_elsewhere(slug)
        elif (resumed := self._residency.resume(slug, desired)) is not None:
            self._start(slug, *resumed)

    def _end_waits(
        self, outlook: Outlook, desired: Mapping[str, DesiredModel], *, is_alone: bool
    ) -> None:
        """Answer jobs that can never be served, or that have waited for too long."""
        errors: dict[str, JobError] = {}
        for slug in outlook.overdue(self._settings.room_timeout_s):
            errors[slug] = self._timeout(slug)
        refused = outlook.plan.refuse if is_alone else {}  # another machine may have more memory
        errors |= {slug: _refused(why) for slug, why in refused.items()}
        hopeless = {slug for slug, why in refused.items() if not why.pinned}
        for slug, error in errors.items():
            refuse = partial(self._refuse, slug, desired[slug], error)
            self._guarded(partial(refuse, spares_batch=slug not in hopeless))

    def _refuse(
        self, slug: str, desired: DesiredModel, error: JobError, *, spares_batch: bool
    ) -> None:
        if self._claimant.take([slug]):
            self._crash_policy.refuse(slug, desired, error, spares_batch=spares_batch)

    def _timeout(self, slug: str) -> JobError:
        reason = self._crash_policy.last_failure(slug)
        why = f": its last load failed: {reason}" if reason else ", which others use"
        seconds = self._settings.room_timeout_s
        return NoRoomError(f"the model waited {seconds:g} s for memory{why}")


def _refused(refusal: Refusal) -> InsufficientMemoryError:
    need = f"the model needs about {_gib(refusal.need_bytes)}"
    if refusal.budget_bytes is None:
        # Only MGS_MODELS_MAX is left as a reason.
        return InsufficientMemoryError(f"{need}, and pinned models take all of MGS_MODELS_MAX")
    budget = f"the budget for models is {_gib(refusal.budget_bytes)} (MGS_MEMORY_BUDGET)"
    if refusal.pinned:
        held = ", ".join(refusal.pinned)
        return InsufficientMemoryError(f"{need}, {budget}, and pinned models hold it: {held}")
    remedy = "choose a smaller model, context_length or number of slots, or set kv_bits"
    return InsufficientMemoryError(f"{need}, {budget}: {remedy}")


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"
