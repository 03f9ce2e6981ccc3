"""Starts, parks and closes the models of one machine as the planner says."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from jobs.contract.records import DesiredModel, JobStatus, NodeStatus, WorkerStatus
from jobs.memory.facts import machine_facts
from jobs.settings import Settings
from jobs.storage.desired_models import DesiredModels, DesiredSnapshot
from jobs.storage.residency.parking import Parking
from jobs.storage.store import JobStore
from workers.supervision.node_identity import NodeIdentity
from workers.supervision.residency.memory import ModelMemory
from workers.supervision.residency.model_view import Limits, ModelView, Phase
from workers.supervision.residency.planner import Plan, plan
from workers.supervision.residency.views import Views
from workers.supervision.worker_process import Child, Reservation

_ELSEWHERE_S = 3.0
_PATIENCE_S = 1.0  # with other machines, one of them may start a model without parking another

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outlook:
    """The plan, and the models as they were seen. ``views`` by slug."""

    plan: Plan = field(default_factory=Plan)
    views: Mapping[str, ModelView] = field(default_factory=dict)
    now: float = 0.0

    def overdue(self, timeout_s: float) -> list[str]:
        """The models without a ready process whose oldest job has waited for that long."""
        return [
            view.slug
            for view in self.views.values()
            if view.phase is Phase.ABSENT
            and view.waiting_since is not None
            and self.now - view.waiting_since >= timeout_s
        ]


class Residency:
    """Looks at the models once per tick. ``owner()``: this supervisor, as in the locks."""

    def __init__(
        self,
        store: JobStore,
        desired_models: DesiredModels,
        settings: Settings,
        owner: Callable[[], str],
    ) -> None:
        self._store = store
        self._desired_models = desired_models
        self._settings = settings
        self._memory = ModelMemory(settings)
        self._owner = owner
        self._parking = Parking(store)
        self._views = Views(self._memory.need_of)
        self._elsewhere: dict[str, float] = {}
        self._waiting_since: dict[str, float] = {}
        self._retries: dict[str, set[str]] = {}
        self._reserved_bytes = 0
        self._outlook = Outlook()

    def look(
        self,
        snapshot: DesiredSnapshot,
        children: Mapping[str, Child],
        statuses: Mapping[str, WorkerStatus],
        startable: Collection[str],
        *,
        is_alone: bool,
    ) -> Outlook:
        """The plan for now. ``startable``: models that this machine may start."""
        slugs = list(snapshot.desired_models)
        demand = self._parking.demand(slugs)
        now, redis_now = time.monotonic(), self._store.now()
        self._views.keep_only(set(slugs))
        self._memory.keep_only({desired.uid for desired in snapshot.desired_models.values()})
        for slug, status in statuses.items():
            if slug in snapshot.desired_models:
                self._memory.note(snapshot.desired_models[slug], status)
        self._elsewhere = {k: at for k, at in self._elsewhere.items() if now - at < _ELSEWHERE_S}
        may_start = set(startable) - self._elsewhere.keys() - self._held_back(snapshot, children)
        views = {
            slug: self._views.view(
                slug,
                desired,
                children.get(slug),
                statuses.get(slug),
                demand[slug],
                may_start=slug in may_start,
                now=now,
                redis_now=redis_now,
            )
            for slug, desired in snapshot.desired_models.items()
        }
        undesired = [_leaving(child) for slug, child in children.items() if slug not in views]
        limits = self._limits(is_alone=is_alone)
        self._reserved_bytes = sum(child.reservation.num_bytes for child in children.values())
        outlook = Outlook(plan([*views.values(), *undesired], limits, now), views, now)
        self._note_waiting(outlook.plan)
        self._outlook = outlook
        return outlook

    def _limits(self, *, is_alone: bool) -> Limits:
        return Limits(
            budget_bytes=self._memory.budget.total_bytes,
            max_models=self._settings.models_max,
            swap_after_s=self._settings.swap_after_s,
            residence_s=self._settings.swap_after_s / 2,
            patience_s=0.0 if is_alone else _PATIENCE_S,
            recent_s=self._settings.batch_quiet_s,
            batch_turn_s=self._settings.batch_turn_s,
        )

    def _note_waiting(self, found: Plan) -> None:
        now = time.time()
        self._waiting_since = {slug: self._waiting_since.get(slug, now) for slug in found.waiting}

    def node_status(
        self, identity: NodeIdentity, children: Mapping[str, Child], crashes: dict[str, int]
    ) -> NodeStatus:
        """The supervisor's heartbeat."""
        facts, budget = machine_facts(), self._memory.budget
        return NodeStatus(
            node=identity.name,
            pid=os.getpid(),
            memory_bytes=facts.memory_bytes,
            num_workers=len(children),
            crashes=crashes,
            uid=identity.uid,
            token=identity.token,
            reserved={slug: child.reservation.num_bytes for slug, child in children.items()},
            waiting=self.waiting,
            device_bytes=facts.gpu.limit_bytes if facts.gpu is not None else 0,
            budget_bytes=budget.total_bytes,
            binding=budget.binding,
        )

    @property
    def waiting(self) -> dict[str, float]:
        """The models that wait here for memory or another load, with epoch seconds since when."""
        return dict(self._waiting_since)

    def may_retry(self, failed: Child, children: Mapping[str, Child]) -> bool:
        """Whether a load that failed for lack of memory is tried once more, with more room.

        Idle models are parked for it, those with batch work only are closed, and the load waits
        until their processes are gone. For a batch, models that people use stay.
        """
        if failed.desired.uid in self._retries:
            return False
        others = [child for child in children.values() if child is not failed and child.is_running]
        for child in others:
            if not child.desired.pinned:
                self._give_way(child, self._outlook.views.get(failed.slug))
        leaving = {child.token for child in others if child.is_leaving}
        if leaving:
            self._retries[failed.desired.uid] = leaving
        return bool(leaving)

    def _give_way(self, child: Child, model: ModelView | None) -> None:
        """Let a model make room for the next try of ``model``."""
        view, now = self._outlook.views.get(child.slug), time.monotonic()
        if view is not None and model is not None and model.is_for_batch:
            is_recent = now - view.interactive_at < self._settings.batch_quiet_s
            if is_recent or view.is_in_use or view.has_batch_work:
                return
        if view is not None and view.has_only_batch_work:
            self.close(child)
        else:
            self.park(child, self._settings.grace_s)

    def _held_back(self, snapshot: DesiredSnapshot, children: Mapping[str, Child]) -> set[str]:
        """The slugs of such loads while one of those processes is there."""
        tokens, desired_models = {c.token for c in children.values()}, snapshot.desired_models
        uids = {desired.uid for desired in desired_models.values()}
        self._retries = {uid: left for uid, left in self._retries.items() if uid in uids}
        return {
            slug
            for slug, desired in desired_models.items()
            if self._retries.get(desired.uid, set()) & tokens
        }

    def note_elsewhere(self, slug: str) -> None:
        """Another machine has the model now. It is not planned here for a moment."""
        self._elsewhere[slug] = time.monotonic()

    def resume(self, slug: str, desired: DesiredModel) -> tuple[DesiredModel, Reservation] | None:
        """Mark the model as resident before its start. Returns it and the memory to reserve.

        ``None`` if it is not desired any more.
        """
        current: DesiredModel | None = desired
        if desired.is_parked:
            current = self._desired_models.change(slug, desired.uid, is_parked=False)
        if current is None:
            return None
        return current, self._memory.reservation(current, self._reserved_bytes)

    def park(self, child: Child, grace_s: float) -> None:
        """Park an idle model, or a closed one whose jobs have ended, unless a job prevents it."""
        parked = self._parking.park(
            child.slug,
            child.desired.uid,
            child.worker_names,
            self._owner(),
            with_waiting_jobs=child.is_closed,
        )
        if parked is not None:
            log.info("model parked", extra={"model": child.desired.model_id, "pid": child.pid})
            self._desired_models.notify()  # the API's copy says that it has a process
            child.stop(grace_s)

    def close(self, child: Child) -> None:
        """Let a busy model give way: it takes no further job. ``park`` follows at each tick."""
        if not child.is_closed:
            log.info(
                "model closed to make room",
                extra={"model": child.desired.model_id, "pid": child.pid},
            )
        self._store.stop_takes(child.slug, child.worker_names, self._owner())
        child.is_closed = True
        self.hand_back_batch(child)

    def hand_back_batch(self, child: Child) -> None:
        """Ask a closed worker for its jobs of the class batch. They continue in its next process.

        A command may be lost, so this is called at each tick.
        """
        own, claims = set(child.worker_names), self._store.claims(child.slug)
        workers = {job_id: worker for worker, job_id in claims if worker in own}
        for record in self._store.records(list(workers)):
            if record.job_class == "batch" and record.status is JobStatus.RUNNING:
                self._store.send_yield(workers[record.job_id], record.job_id)


def _leaving(child: Child) -> ModelView:
    """A process of a model that is not desired any more; its memory is not free yet."""
    return ModelView(child.slug, Phase.LEAVING, need_bytes=child.reservation.num_bytes)
