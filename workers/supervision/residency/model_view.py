"""What the planner is told: models, their processes and jobs, and the machine's limits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum, auto


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
    ``is_busy`` and ``waiting_since`` are of interactive jobs: whether one is taken, and since when
    the oldest waits for a process or a slot; ``is_batch_busy`` and ``batch_since`` are the same of
    the class batch. ``has_frozen``: jobs of a class on hold wait. ``idle_since``: when the last job
    was there, ``interactive_at``: when the last interactive one was. ``is_wanted``: it should have
    a process even if no job waits. ``may_start`` is False during a back-off. A ``LOADING`` model
    that ``is_stalled`` does not hold up other loads.
    """

    slug: str
    phase: Phase
    need_bytes: int = 0
    is_guess: bool = False
    is_busy: bool = False
    is_wanted: bool = False
    waiting_since: float | None = None
    is_batch_busy: bool = False
    batch_since: float | None = None
    has_frozen: bool = False
    idle_since: float = 0.0
    interactive_at: float = -math.inf
    ready_since: float = 0.0
    is_pinned: bool = False
    priority: int = 0
    is_auto: bool = False
    ttl_s: float | None = None
    may_start: bool = True
    is_stalled: bool = False

    @property
    def is_in_use(self) -> bool:
        """By an interactive job."""
        return self.is_busy or self.waiting_since is not None

    @property
    def has_batch_work(self) -> bool:
        return self.is_batch_busy or self.batch_since is not None

    @property
    def has_only_batch_work(self) -> bool:
        return self.has_batch_work and not self.is_in_use

    @property
    def is_for_batch(self) -> bool:
        """Whether of those that wait for it all are of the class batch."""
        return self.batch_since is not None and self.waiting_since is None

    @property
    def is_batch_candidate(self) -> bool:
        """Without a process, it would be started for the class batch alone."""
        return self.is_for_batch and not self.is_wanted

    @property
    def is_candidate(self) -> bool:
        """Whether it has no process but should have one."""
        has_demand = self.is_wanted or self.waiting_since is not None or self.has_batch_work
        return self.phase is Phase.ABSENT and has_demand and self.may_start

    def clipped(self, budget_bytes: int | None) -> ModelView:
        """A guess of more than the budget is no reason to refuse a model: it is tried alone."""
        if not self.is_guess or budget_bytes is None or self.need_bytes <= budget_bytes:
            return self
        return replace(self, need_bytes=budget_bytes)


@dataclass(frozen=True, slots=True)
class Limits:
    """The machine's limits; ``None``: no limit. Times are in seconds.

    A busy model gives way to one whose job has waited ``swap_after_s``. None gives way within
    ``residence_s`` of its start, nor for a model that has waited less than ``patience_s``: another
    machine may have room for it. For work of the class batch, none gives way that had an
    interactive job within ``recent_s``, and one with such work only after ``batch_turn_s``.
    """

    budget_bytes: int | None = None
    max_models: int | None = None
    swap_after_s: float = 20.0
    residence_s: float = 10.0
    patience_s: float = 0.0
    recent_s: float = 300.0
    batch_turn_s: float = 600.0
