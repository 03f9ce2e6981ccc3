"""A machine with models on a fake clock, which does what the planner says, in random order.

Beside interactive jobs, whose times are in ``waiting`` and ``ends``, there are lines of batches.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass, field

from workers.supervision.residency.model_view import Limits, ModelView, Phase
from workers.supervision.residency.planner import Plan, plan

GIB = 2**30


@dataclass
class _Model:
    """One model: its process, and the times of its waiting and running jobs."""

    slug: str
    need: int
    pinned: bool
    priority: int
    is_auto: bool
    ttl_s: float | None
    rate: float
    phase: Phase = Phase.ABSENT
    since: float = 0.0
    absent_since: float = 0.0
    used_at: float = 0.0
    waiting: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    lines: list[float] = field(default_factory=list)
    line_ends: list[float] = field(default_factory=list)
    asked_at: float = -math.inf
    is_refused: bool = False


class PlannerWorld:
    """``step`` moves the clock, lets jobs arrive and end, and checks each plan by the rules."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.now = 1000.0
        budget = self.draw.choice([None, 8, 16, 24])
        self.limits = Limits(
            budget_bytes=budget and budget * GIB,
            max_models=self.draw.choice([None, None, 1, 3]),
            recent_s=self.draw.choice([5.0, 60.0]),
            batch_turn_s=self.draw.choice([30.0, 120.0]),
        )
        self.batch_rate = self.draw.choice([0.0, 0.02, 0.2])
        self.num_lines = 0
        self.models = {f"m{i}": self._new_model(f"m{i}") for i in range(self.draw.randint(2, 7))}
        self.load_s = self.draw.choice([0.5, 5.0, 30.0])
        self.swaps: Counter[str] = Counter()
        self.longest_wait_s = 0.0

    def _new_model(self, slug: str) -> _Model:
        draw = self.draw
        return _Model(
            slug=slug,
            need=int(draw.uniform(0.5, 12) * GIB),
            pinned=draw.random() < 0.1,
            priority=draw.choice([0, 0, 0, 1, -1]),
            is_auto=draw.random() < 0.5,
            ttl_s=draw.choice([None, 0.0, 5.0, 60.0]),
            rate=draw.choice([0.15, 0.15, 0.02, 0.002]),
        )

    def step(self) -> Plan:
        """One tick of about a second. Raises ``AssertionError`` when a rule is broken."""
        self.now += self.draw.choice([0.05, 1.0, 1.0, 3.0])
        for model in self.models.values():
            self._live(model)
        found = plan(self.views(), self.limits, self.now)
        self._check(found)
        self._do(found)
        assert self.reserved() <= (self.limits.budget_bytes or 2**62)
        if self.limits.max_models is not None:
            assert self.num_processes() <= self.limits.max_models
        return found

    def _live(self, model: _Model) -> None:
        """Jobs arrive, start and end; loads and exits complete."""
        if self.draw.random() < model.rate:
            model.waiting.append(self.now)
        if self.draw.random() < self.batch_rate:
            model.lines += [self.now] * self.draw.randint(1, 20)
        model.ends = [at for at in model.ends if at > self.now]
        self.num_lines += sum(at <= self.now for at in model.line_ends)
        model.line_ends = [at for at in model.line_ends if at > self.now]
        if model.phase is Phase.LOADING and self.now - model.since >= self.load_s:
            model.phase, model.since = Phase.READY, self.now
        elif model.phase is Phase.READY:
            while model.waiting and len(model.ends) < 2:
                model.waiting.pop(0)
                model.ends.append(self.now + self.draw.uniform(0.1, 15))
            while model.lines and len(model.ends) + len(model.line_ends) < 2:
                model.lines.pop(0)
                model.line_ends.append(self.now + self.draw.uniform(0.1, 15))
        elif model.phase is Phase.LEAVING and not model.ends and self.draw.random() < 0.5:
            model.phase, model.absent_since = Phase.ABSENT, self.now
        if model.ends or model.line_ends or model.phase is not Phase.READY:
            model.used_at = self.now
        if model.ends or model.waiting:
            model.asked_at = self.now

    def views(self) -> list[ModelView]:
        return [self._view(model) for model in self.models.values()]

    def _view(self, model: _Model) -> ModelView:
        waiting_since = model.waiting[0] if model.waiting else None
        if waiting_since is not None and model.phase is Phase.ABSENT:
            waiting_since = max(waiting_since, model.absent_since)
        batch_since = max(model.lines[0], model.absent_since) if model.lines else None
        return ModelView(
            slug=model.slug,
            phase=model.phase,
            need_bytes=model.need,
            is_busy=bool(model.ends),
            waiting_since=waiting_since,
            is_batch_busy=bool(model.line_ends),
            batch_since=batch_since,
            idle_since=model.used_at,
            interactive_at=model.asked_at,
            ready_since=model.since,
            is_pinned=model.pinned,
            priority=model.priority,
            is_auto=model.is_auto,
            ttl_s=model.ttl_s,
        )

    def _check(self, found: Plan) -> None:
        """The rules that hold for each plan."""
        assert len(found.start) <= 1
        has_demand = False
        for slug in found.park:
            model = self.models[slug]
            jobs = [*model.ends, *model.waiting, *model.lines, *model.line_ends]
            assert not jobs, "a busy model was parked"
        for slug in found.park + found.close:
            assert self.models[slug].phase is Phase.READY
            assert not self.models[slug].pinned
        for slug, model in self.models.items():
            if model.phase is not Phase.ABSENT or not (model.waiting or model.lines):
                continue
            has_demand = True
            ways = [slug in found.start, slug in found.waiting, slug in found.refuse]
            assert sum(ways) == 1, f"{slug} waits and is neither started, waiting nor refused"
        if found.close:
            assert has_demand, "a busy model gives way to nobody"
        self._check_classes(found)

    def _check_classes(self, found: Plan) -> None:
        """Batches take nothing from people, and give way to them at once."""
        asking = [self.models[slug] for slug in found.waiting if self.models[slug].waiting]
        for slug in found.start:
            is_batch_only = bool(self.models[slug].lines) and not self.models[slug].waiting
            assert not (is_batch_only and asking), "a batch took what a person waits for"
        if not asking and not any(self.models[slug].waiting for slug in found.start):
            for slug in found.park + found.close:
                model = self.models[slug]
                has_expired = model.ttl_s is not None and self.now - model.used_at >= model.ttl_s
                is_recent = self.now - model.asked_at < self.limits.recent_s
                assert has_expired or not is_recent, "a batch took a model that a person uses"
        if asking:
            first = min(asking, key=lambda model: max(model.waiting[0], model.absent_since))
            assert self._has_to_wait(first, found), f"a batch keeps {first.slug} waiting"

    def _has_to_wait(self, model: _Model, found: Plan) -> bool:
        """Whether it has its room soon, or would not fit if all batch work left too."""
        leaving = [*found.park, *found.close]
        staying = [
            m
            for m in self.models.values()
            if m.phase in (Phase.LOADING, Phase.READY) and m.slug not in leaving
        ]
        starting = [self.models[slug] for slug in found.start]
        if self._fits(model, [*staying, *starting]):
            return True
        rest = [m for m in staying if m.pinned or m.phase is Phase.LOADING or not _is_batch_only(m)]
        return not self._fits(model, [*rest, *starting])

    def _fits(self, model: _Model, others: list[_Model]) -> bool:
        budget, most = self.limits.budget_bytes or 2**62, self.limits.max_models or len(self.models)
        is_small = model.need + sum(other.need for other in others) <= budget
        return is_small and len(others) < most

    def _do(self, found: Plan) -> None:
        for slug in found.start:
            model = self.models[slug]
            model.phase, model.since = Phase.LOADING, self.now
            if model.waiting:
                waited = self.now - max(model.waiting[0], model.absent_since)
                self.longest_wait_s = max(self.longest_wait_s, waited)
        for slug in found.park + found.close:
            model = self.models[slug]
            model.phase = Phase.LEAVING
            model.lines, model.line_ends = (
                [self.now] * len(model.line_ends) + model.lines,
                [],
            )  # handed back
            self.swaps[slug] += 1
        for slug in found.refuse:
            self.models[slug].waiting.clear()
            self.models[slug].lines.clear()
            self.models[slug].is_refused = True

    def reserved(self) -> int:
        """Bytes of all models with a process."""
        return sum(m.need for m in self.models.values() if m.phase is not Phase.ABSENT)

    def num_processes(self) -> int:
        return sum(m.phase is not Phase.ABSENT for m in self.models.values())


def _is_batch_only(model: _Model) -> bool:
    has_lines = bool(model.lines or model.line_ends)
    return model.phase is Phase.READY and has_lines and not (model.waiting or model.ends)
