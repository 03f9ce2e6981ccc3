"""Plans which models of one machine start, park, close or are refused: a pure function.

Parking ends the process of an idle model. A busy model that must give way is closed: it takes no
further job, and parks when its running ones have ended. A model that fits beside all others is
never affected.

Work of the class batch asks last and gives way first: a model with nothing else is started in room
that nobody needs or that nobody has used for a while, and leaves it at once to one with an
interactive job.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from workers.supervision.residency.model_view import Limits, ModelView, Phase


class Refusal(NamedTuple):
    """Why a model can not be started: its need, the budget, and the pinned models in its way."""

    need_bytes: int
    budget_bytes: int | None
    pinned: tuple[str, ...] = ()


@dataclass(slots=True)
class Plan:
    """What to do now. ``waiting``: models that will be started later."""

    start: list[str] = field(default_factory=list)
    park: list[str] = field(default_factory=list)
    close: list[str] = field(default_factory=list)
    refuse: dict[str, Refusal] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)


def plan(models: Iterable[ModelView], limits: Limits, now: float) -> Plan:
    """The next steps for these models."""
    return _Planner(list(models), limits, now).run()


class _Room(NamedTuple):
    """Memory in bytes, and processes. Infinite without a limit."""

    num_bytes: float
    num_models: float

    def less(self, model: ModelView) -> _Room:
        return _Room(self.num_bytes - model.need_bytes, self.num_models - 1)

    def plus(self, models: Iterable[ModelView]) -> _Room:
        freed = list(models)
        return _Room(
            self.num_bytes + sum(model.need_bytes for model in freed), self.num_models + len(freed)
        )

    def and_(self, other: _Room) -> _Room:
        return _Room(self.num_bytes + other.num_bytes, self.num_models + other.num_models)

    def without(self, part: _Room) -> _Room:
        """Nothing is left where there is no limit."""
        left = (0 if few == math.inf else all_ - few for all_, few in zip(self, part, strict=True))
        return _Room(*left)

    def fits(self, model: ModelView) -> bool:
        return model.need_bytes <= self.num_bytes and self.num_models >= 1


_NOTHING = _Room(0, 0)


class _Planner:
    def __init__(self, models: list[ModelView], limits: Limits, now: float) -> None:
        self._models = [model.clipped(limits.budget_bytes) for model in models]
        self._limits = limits
        self._now = now
        self._plan = Plan()
        self._whole = _Room(
            math.inf if limits.budget_bytes is None else limits.budget_bytes,
            math.inf if limits.max_models is None else limits.max_models,
        )
        present = [model for model in self._models if model.phase is not Phase.ABSENT]
        self._free = self._whole
        for model in present:
            self._free = self._free.less(model)
        self._coming = _NOTHING.plus(model for model in present if model.phase is Phase.LEAVING)

    def run(self) -> Plan:
        for model in self._models:
            if self._has_expired(model):
                self._release(model)
        for model in sorted((m for m in self._models if m.is_candidate), key=self._urgency):
            self._place(model)
        return self._plan

    def _has_expired(self, model: ModelView) -> bool:
        if model.phase is not Phase.READY or model.is_in_use or model.has_batch_work:
            return False
        if model.is_pinned or model.ttl_s is None:
            return False
        return self._now - model.idle_since >= model.ttl_s

    def _urgency(self, model: ModelView) -> tuple[bool, bool, int, float, str]:
        """First those that have waited for long, so that none starves; then by priority. Those
        with work of the class batch only are last.
        """
        is_batch, since = model.is_batch_candidate, model.waiting_since
        if is_batch:
            since = model.batch_since
        since = math.inf if since is None else since
        has_waited = self._now - since >= self._limits.swap_after_s
        return is_batch, not has_waited, 0 if has_waited else -model.priority, since, model.slug

    def _place(self, model: ModelView) -> None:
        """Start the model, or make room for it; it holds that room against later ones."""
        refusal = self._refusal(model)
        is_behind = self._is_asked_for or (refusal is not None and refusal.pinned)
        if model.is_batch_candidate and is_behind:
            self._plan.waiting.append(model.slug)  # a batch has time, until they are unpinned too
            return
        if refusal is not None:
            self._plan.refuse[model.slug] = refusal
            return
        if self._free.fits(model):
            self._start(model)
            return
        self._plan.waiting.append(model.slug)
        if self._free.and_(self._coming).fits(model) or self._make_room(model):
            self._hold_for(model)

    @property
    def _is_asked_for(self) -> bool:
        """Whether an interactive job waits for room, which nothing may take meanwhile."""
        return any(
            m.slug in self._plan.waiting and m.waiting_since is not None for m in self._models
        )

    def _start(self, model: ModelView) -> None:
        """One load at a time: the measured memory of one is known before the next begins."""
        is_loading = any(m.phase is Phase.LOADING and not m.is_stalled for m in self._models)
        if is_loading or self._plan.start:
            self._plan.waiting.append(model.slug)
        else:
            self._plan.start.append(model.slug)
        self._free = self._free.less(model)

    def _hold_for(self, model: ModelView) -> None:
        """Of what is free and what comes free, so that a later model cannot start in it."""
        rest = self._free.and_(self._coming).less(model)
        self._free = _Room(*map(min, self._free, rest))
        self._coming = rest.without(self._free)

    def _refusal(self, model: ModelView) -> Refusal | None:
        """The reason for a model that does not fit even when all others are gone."""
        if not self._whole.fits(model):
            return Refusal(model.need_bytes, self._limits.budget_bytes)
        pinned = [m for m in self._models if m.is_pinned and m.phase is not Phase.ABSENT]
        rest = self._whole
        for other in pinned:
            rest = rest.less(other)
        if rest.fits(model):
            return None
        slugs = tuple(other.slug for other in pinned)
        return Refusal(model.need_bytes, self._limits.budget_bytes, slugs)

    def _make_room(self, model: ModelView) -> bool:
        """Choose models that give way. False if the time for that has not come."""
        if model.waiting_since is None and model.batch_since is None:
            return False  # nobody waits for it
        victims = self._victims_for(model)
        for victim in victims:
            self._release(victim)
        return bool(victims)

    def _victims_for(self, model: ModelView) -> Sequence[ModelView]:
        """As few models as suffice, the least important ones first; empty if none suffice."""
        available = sorted(
            (m for m in self._models if self._gives_way(m, model)), key=self._unimportance
        )
        free = self._free.and_(self._coming)
        for victim in available:
            if free.plus([victim]).fits(model):
                return [victim]
        chosen: list[ModelView] = []
        for victim in available:
            chosen.append(victim)
            if free.plus(chosen).fits(model):
                return _without_needless(chosen, free, model)
        return ()

    def _gives_way(self, victim: ModelView, model: ModelView) -> bool:
        is_taken = victim.slug in self._plan.park or victim.slug in self._plan.close
        if victim.phase is not Phase.READY or victim.is_pinned or is_taken:
            return False
        if model.waiting_since is None:
            return self._gives_way_to_batch(victim, model)
        waited_s = self._now - model.waiting_since
        if victim.has_only_batch_work:
            return waited_s >= self._limits.patience_s
        if self._now - victim.ready_since < self._limits.residence_s:
            return False
        if not victim.is_in_use or model.priority > victim.priority:
            return waited_s >= self._limits.patience_s
        return waited_s >= self._limits.swap_after_s

    def _gives_way_to_batch(self, victim: ModelView, model: ModelView) -> bool:
        """A turn of batch work is long, since each one costs two loads."""
        limits = self._limits
        if victim.is_in_use or self._is_recent(victim) or model.batch_since is None:
            return False
        has_work, waited_s = victim.has_batch_work, self._now - model.batch_since
        least_s = limits.batch_turn_s if has_work else limits.residence_s
        if self._now - victim.ready_since < least_s:
            return False
        if not has_work and self._now - victim.idle_since < limits.residence_s:
            return False  # its batch may go on
        return waited_s >= (limits.batch_turn_s if has_work else limits.patience_s)

    def _is_recent(self, model: ModelView) -> bool:
        """Whether somebody used it a moment ago, and may go on."""
        return self._now - model.interactive_at < self._limits.recent_s

    def _unimportance(self, model: ModelView) -> tuple[int, int, bool, float, str]:
        """Idle ones first, then those with batch work only; of equal ones those with low priority,
        loaded by a request, and unused for the longest time.
        """
        if model.is_in_use:
            rank = 3
        elif model.has_batch_work:
            rank = 1
        else:  # who has just used a model is not put off for a batch
            rank = 2 if self._is_recent(model) and self._has_batch_victims else 0
        return rank, model.priority, not model.is_auto, model.idle_since, model.slug

    @property
    def _has_batch_victims(self) -> bool:
        return any(m.phase is Phase.READY and m.has_only_batch_work for m in self._models)

    def _release(self, victim: ModelView) -> None:
        """With jobs on a queue it is closed first: parking alone would wait for their end."""
        is_closed = victim.is_in_use or victim.has_batch_work or victim.has_frozen
        chosen = self._plan.close if is_closed else self._plan.park
        chosen.append(victim.slug)
        self._coming = self._coming.plus([victim])


def _without_needless(
    chosen: list[ModelView], free: _Room, model: ModelView
) -> Sequence[ModelView]:
    """Leave out those without which the rest suffices, the most important ones first."""
    for victim in reversed(chosen[:-1]):
        rest = [other for other in chosen if other is not victim]
        if free.plus(rest).fits(model):
            chosen = rest
    return chosen
