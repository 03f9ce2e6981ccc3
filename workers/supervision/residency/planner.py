"""Plans which models of one machine start, park, close or are refused: a pure function.

Parking ends the process of an idle model. A busy model that must give way is closed: it takes no
further job, and parks when its running ones have ended. A model that fits beside all others is
never affected.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import NamedTuple


class Phase(Enum):
    """What a model's process does. A ``LEAVING`` one has been closed, parked or stopped."""

    ABSENT = auto()
    LOADING = auto()
    READY = auto()
    LEAVING = auto()


@dataclass(frozen=True, slots=True)
class ModelView:
    """One desired model as the planner sees it. Times are seconds of one clock.

    ``need_bytes`` is reserved while it has a process. ``is_guess``: its estimate may be far off.
    ``waiting_since`` is the time since when its oldest waiting job waits for a process or a slot.
    ``is_wanted``: it should have a process even if no job waits. ``may_start`` is False during a
    back-off. A ``LOADING`` model that ``is_stalled`` does not hold up other loads.
    """

    slug: str
    phase: Phase
    need_bytes: int = 0
    is_guess: bool = False
    is_busy: bool = False
    is_wanted: bool = False
    waiting_since: float | None = None
    idle_since: float = 0.0
    ready_since: float = 0.0
    is_pinned: bool = False
    priority: int = 0
    is_auto: bool = False
    ttl_s: float | None = None
    may_start: bool = True
    is_stalled: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """The machine's limits; ``None``: no limit. Times are in seconds.

    A busy model gives way to one whose job has waited ``swap_after_s``. None gives way within
    ``residence_s`` of its start, nor for a model that has waited less than ``patience_s``: another
    machine may have room for it.
    """

    budget_bytes: int | None = None
    max_models: int | None = None
    swap_after_s: float = 20.0
    residence_s: float = 10.0
    patience_s: float = 0.0


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
        self._models = [_clipped(model, limits.budget_bytes) for model in models]
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
        for model in sorted(filter(_is_candidate, self._models), key=self._urgency):
            self._place(model)
        return self._plan

    def _has_expired(self, model: ModelView) -> bool:
        is_idle = model.phase is Phase.READY and not model.is_busy and model.waiting_since is None
        if not is_idle or model.is_pinned or model.ttl_s is None:
            return False
        return self._now - model.idle_since >= model.ttl_s

    def _urgency(self, model: ModelView) -> tuple[bool, int, float, str]:
        """First those that have waited for long, so that none starves; then by priority."""
        since = math.inf if model.waiting_since is None else model.waiting_since
        has_waited = self._now - since >= self._limits.swap_after_s
        return not has_waited, 0 if has_waited else -model.priority, since, model.slug

    def _place(self, model: ModelView) -> None:
        """Start the model, or make room for it; it holds that room against later ones."""
        if (refusal := self._refusal(model)) is not None:
            self._plan.refuse[model.slug] = refusal
            return
        if self._free.fits(model):
            self._start(model)
            return
        self._plan.waiting.append(model.slug)
        if self._free.and_(self._coming).fits(model) or self._make_room(model):
            self._hold_for(model)

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
        if model.waiting_since is None:
            return False  # nobody waits for it
        victims = self._victims_for(model)
        for victim in victims:
            self._release(victim)
        return bool(victims)

    def _victims_for(self, model: ModelView) -> Sequence[ModelView]:
        """As few models as suffice, the least important ones first; empty if none suffice."""
        available = sorted(
            (m for m in self._models if self._gives_way(m, model)), key=_unimportance
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
        if self._now - victim.ready_since < self._limits.residence_s:
            return False
        assert model.waiting_since is not None
        waited_s = self._now - model.waiting_since
        if not _is_in_use(victim) or model.priority > victim.priority:
            return waited_s >= self._limits.patience_s
        return waited_s >= self._limits.swap_after_s

    def _release(self, victim: ModelView) -> None:
        chosen = self._plan.close if _is_in_use(victim) else self._plan.park
        chosen.append(victim.slug)
        self._coming = self._coming.plus([victim])


def _clipped(model: ModelView, budget_bytes: int | None) -> ModelView:
    """A guess of more than the budget is no reason to refuse a model: it is tried alone."""
    if not model.is_guess or budget_bytes is None or model.need_bytes <= budget_bytes:
        return model
    return replace(model, need_bytes=budget_bytes)


def _is_candidate(model: ModelView) -> bool:
    has_demand = model.is_wanted or model.waiting_since is not None
    return model.phase is Phase.ABSENT and has_demand and model.may_start


def _is_in_use(model: ModelView) -> bool:
    return model.is_busy or model.waiting_since is not None


def _unimportance(model: ModelView) -> tuple[bool, int, bool, float, str]:
    """Idle ones first, then low priority, loaded by a request, and unused for the longest time."""
    return _is_in_use(model), model.priority, not model.is_auto, model.idle_since, model.slug


def _without_needless(
    chosen: list[ModelView], free: _Room, model: ModelView
) -> Sequence[ModelView]:
    """Leave out those without which the rest suffices, the most important ones first."""
    for victim in reversed(chosen[:-1]):
        rest = [other for other in chosen if other is not victim]
        if free.plus(rest).fits(model):
            chosen = rest
    return chosen
