"""The goals, and their comparison with the medians of a record's rounds."""

from __future__ import annotations

import math
import operator
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from bench import overhead, scenarios, system
from bench.cpu_time import OUTSIDE_MS
from bench.measurement import BARE, OURS, Record
from bench.model_files import REAL, REAL_MLX
from bench.scenarios import (
    BURST,
    CHAT,
    GAP_P99,
    LONG,
    PREFIX,
    TOKENS_PER_S,
    TTFT_P50,
    distinct_name,
)
from bench.system import FAKE
from bench.targets import LLAMA_SERVER, MLX_LM

MIN_ROUNDS = 5  # fewer are not significant
_TAIL = 0.025


class Bound(Enum):
    """Whether the limit is an upper or a lower bound."""

    AT_LEAST = "≥"
    AT_MOST = "≤"

    def holds(self, value: float, limit: float) -> bool:
        """Whether ``value`` is within the bound, which is inclusive."""
        compare = operator.ge if self is Bound.AT_LEAST else operator.le
        return bool(compare(value, limit))


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of each round: a model's, scenario's, target's metric."""

    scenario: str
    model: str
    target: str
    metric: str

    def rounds(self, record: Record) -> dict[int, float]:
        """Round -> value."""
        return record.rounds_of(self.scenario, self.model, self.target, self.metric)


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit for ``cell``, or for its ratio to ``over`` of the same round."""

    name: str
    cell: Cell
    bound: Bound
    limit: float
    over: Cell | None = None

    def judge(self, record: Record) -> Outcome:
        """Compare the goal with a record."""
        values = self.cell.rounds(record)
        if self.over is not None:
            values = ratios(values, self.over.rounds(record))
        return Outcome(self, sorted(values.values()))


@dataclass(frozen=True, slots=True)
class Outcome:
    """A goal and its sorted values of all rounds; empty: not measured."""

    goal: Goal
    values: list[float]

    @property
    def median(self) -> float | None:
        return statistics.median(self.values) if self.values else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % confidence interval of the median, of order statistics; ``None`` if the range
        of the values is narrower than that (fewer than six)."""
        num = len(self.values)
        rank, tail = 0, 0.5**num  # tail: probability that ``rank`` or fewer values are below it
        while tail <= _TAIL:
            rank += 1
            tail += math.comb(num, rank) * 0.5**num
        return None if rank == 0 else (self.values[rank - 1], self.values[-rank])

    @property
    def is_met(self) -> bool | None:
        """``None``: not measured."""
        median = self.median
        return None if median is None else self.goal.bound.holds(median, self.goal.limit)

    @property
    def verdict(self) -> str:
        if self.is_met is None:
            return "not measured"
        rounds = "" if len(self.values) >= MIN_ROUNDS else f" (only {len(self.values)} rounds)"
        return f"{'met' if self.is_met else 'MISSED'}{rounds}"


def ratios(values: Mapping[int, float], others: Mapping[int, float]) -> dict[int, float]:
    """Ratios of two values of the same round, for the rounds that have both.

    Slow changes of the machine's speed affect both values of a round, and cancel out.
    """
    return {r: values[r] / others[r] for r in sorted(values.keys() & others.keys()) if others[r]}


def _against(
    name: str, scenario: str, model: str, metric: str, peer: str, bound: Bound, limit: float
) -> Goal:
    ours, theirs = (Cell(scenario, model, target, metric) for target in (OURS, peer))
    return Goal(name, ours, bound, limit, theirs)


def _own(name: str, scenario: str, model: str, metric: str, bound: Bound, limit: float) -> Goal:
    return Goal(name, Cell(scenario, model, OURS, metric), bound, limit)


def _tokens_per_s(model: str, peer: str, clients: int, limit: float) -> Goal:
    name = f"{model}: tokens/s against {peer}, {clients} client{'s' if clients > 1 else ''}"
    scenario = distinct_name(clients)
    return _against(name, scenario, model, TOKENS_PER_S, peer, Bound.AT_LEAST, limit)


def _grammar(model: str) -> Goal:
    free, constrained = (
        Cell(scenarios.GRAMMAR, model, OURS, metric)
        for metric in (scenarios.FREE, scenarios.CONSTRAINED)
    )
    name = f"{model}: tokens/s within a JSON schema against without, 4 clients"
    return Goal(name, constrained, Bound.AT_LEAST, 0.9, free)


def _second_turn(model: str) -> Goal:
    first, second = (
        Cell(CHAT, model, OURS, metric) for metric in (scenarios.FIRST_TURN, scenarios.SECOND_TURN)
    )
    name = f"{model}: TTFT of the second chat turn against the first"
    return Goal(name, second, Bound.AT_MOST, 0.15, first)


HALF, TINY, SMALL = "half.gguf", "tiny", "small"
_CLIENTS = (1, 4, 16)
_LEAST, _MOST = Bound.AT_LEAST, Bound.AT_MOST
GOALS: tuple[Goal, ...] = (
    *(_tokens_per_s(HALF, LLAMA_SERVER, clients, 1.0) for clients in _CLIENTS),
    _against(
        f"{HALF}: TTFT p50 with a shared prefix against {LLAMA_SERVER}",
        PREFIX, HALF, TTFT_P50, LLAMA_SERVER, _MOST, 0.5,
    ),
    _against(
        f"{HALF}: gap p99 while a long prompt arrives against {LLAMA_SERVER}",
        LONG, HALF, GAP_P99, LLAMA_SERVER, _MOST, 0.5,
    ),
    *(_tokens_per_s(TINY, MLX_LM, clients, 1.5) for clients in _CLIENTS),
    *(_tokens_per_s(SMALL, MLX_LM, clients, 1.0) for clients in _CLIENTS),
    *(_tokens_per_s(REAL, LLAMA_SERVER, clients, 0.97) for clients in _CLIENTS),
    *(
        _tokens_per_s(REAL_MLX, MLX_LM, clients, limit)
        for clients, limit in zip(_CLIENTS, (1.05, 1.2, 1.2), strict=True)
    ),
    *(
        _own(
            f"{REAL}: processor time outside the engine, {clients} clients (ms/token)",
            distinct_name(clients), REAL, OUTSIDE_MS, _MOST, 0.6,
        )
        for clients in _CLIENTS
    ),
    _own(f"{REAL}: gap p99 while 16 clients arrive (ms)", BURST, REAL, GAP_P99, _MOST, 300.0),
    _against(
        f"{REAL}: TTFT p50 of 16 clients that arrive at once against {LLAMA_SERVER}",
        BURST, REAL, TTFT_P50, LLAMA_SERVER, _MOST, 1.0,
    ),
    _tokens_per_s(HALF, BARE, 1, 0.95),
    _tokens_per_s(TINY, BARE, 8, 0.9),
    _second_turn(HALF),
    _second_turn(TINY),
    _grammar(HALF),
    _own("queue hop p50 (ms)", overhead.OVERHEAD, FAKE, overhead.HOP_P50, _MOST, 3.0),
    _own("added per token (ms)", overhead.OVERHEAD, FAKE, overhead.PER_TOKEN, _MOST, 0.2),
    Goal(
        "token-count jobs/s against RQ's empty jobs",
        Cell(system.JOBS, FAKE, OURS, system.JOBS_PER_S), _LEAST, 1.0,
        Cell(system.JOBS, FAKE, OURS, system.RQ_JOBS_PER_S),
    ),
    _own(
        "commands sent to Redis per job, a script as one",
        system.JOBS, FAKE, system.SENT_PER_JOB, _MOST, 20.0,
    ),
    _own(
        "tokens/s of 64 streams, fake engine",
        system.STREAMS, FAKE, system.DELIVERED_PER_S, _LEAST, 16000.0,
    ),
    _own(
        "of 64 streams, those with a lost or reordered token",
        system.STREAMS, FAKE, system.NUM_WRONG, _MOST, 0.0,
    ),
    _own("idle CPU, two workers (% of a core)", system.IDLE, "demo", system.CPU, _MOST, 2.0),
    *(
        _own(f"{model}: worker beyond model and KV (MB)",
             system.WORKER_MEMORY, model, system.BEYOND, _MOST, limit)
        for model, limit in ((HALF, 150.0), (SMALL, 300.0), (TINY, 300.0))
    ),
)  # fmt: skip
