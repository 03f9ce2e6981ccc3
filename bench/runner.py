"""The order of a run: in each round, every target in turn.

A target's server runs for one round of one model, alone on the machine, so that its caches are
empty at the start and no other process disturbs it. The first target changes with the round.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import httpx

from bench import scenarios, system
from bench.bare import running_bare_loop
from bench.instance import running_instance
from bench.measurement import BARE, OURS, BenchError, Record
from bench.model_files import ModelFile
from bench.overhead import OVERHEAD, measure_overhead
from bench.scenarios import (
    BURST,
    DISTINCT,
    GRAMMAR,
    LONG,
    SERVER_SCENARIOS,
    STANDING,
    Scale,
    distinct_name,
)
from bench.servers import Server, Setup
from bench.system import FAKE, IDLE, JOBS, STREAMS, WORKER_MEMORY, SystemScale
from bench.targets import TARGETS, Target
from bench.texts import Texts

# MLX computes the prompts of this preset on a CPU at about 40 tokens/s: hours for the long ones.
DISTINCT_ONLY = frozenset({"small"})
# A goal is set at this number of clients for this preset only.
FURTHER_CLIENTS = {"tiny": 8}
_FAKE_SLOTS = 64
# The previous server has freed gigabytes. A virtual machine returns them to its host for some
# seconds, each time using a core for 30 to 60 ms, which disturbed the next measurement.
_SETTLE_S = 6.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. ``scenarios``: names of ``bench.scenarios`` and ``bench.system``."""

    scenarios: frozenset[str]
    models: tuple[ModelFile, ...]
    targets: frozenset[str]
    clients: tuple[int, ...]
    rounds: int
    setup: Setup
    scale: Scale = field(default_factory=Scale)
    system_scale: SystemScale = field(default_factory=SystemScale)
    is_every_scenario_for_all: bool = False
    """Also run the scenarios for which a preset is too slow on a CPU."""
    first_round: int = 0

    @property
    def round_numbers(self) -> range:
        return range(self.first_round, self.first_round + self.rounds)

    def scenarios_of(self, model: ModelFile, target: Target) -> list[str]:
        """The scenarios that need a server, without the distinct prompts."""
        if model.name in DISTINCT_ONLY and not self.is_every_scenario_for_all:
            return []
        if target.has_short_slots:
            return []
        unfit = (
            set() if target.is_concurrent else {LONG, BURST}
        )  # no streams run beside the long prompt
        unfit |= set() if target.has_grammars else {GRAMMAR}
        return [name for name in SERVER_SCENARIOS if name in self.scenarios - unfit]

    def clients_of(self, model: ModelFile) -> list[int]:
        if DISTINCT not in self.scenarios:
            return []
        further = FURTHER_CLIENTS.get(model.name)
        return sorted({*self.clients, *([further] if further else [])})


def run(plan: Plan, record: Record, on_change: Callable[[], None]) -> None:
    """Fill ``record``; ``on_change`` is called after each server's round, to save the results."""
    if plan.scenarios & {DISTINCT, *SERVER_SCENARIOS}:
        for model in plan.models:
            _run_model(plan, model, record, on_change)
    if OURS in plan.targets:
        for round_ in plan.round_numbers:
            _run_system(plan, round_, record)
            on_change()


def _run_model(plan: Plan, model: ModelFile, record: Record, on_change: Callable[[], None]) -> None:
    targets = _targets(plan, model, record)
    with running_bare_loop(model, plan.setup) as loop:
        texts = Texts.measured(loop.count_tokens)
    for round_ in plan.round_numbers:
        first = round_ % max(1, len(targets))
        for target in [*targets[first:], *targets[:first]]:
            print(f"{model.name}: {target.name}, round {round_ + 1}", flush=True)
            with _noting_failure(record, f"{model.name}, {target.name}, round {round_ + 1}"):
                _run_target(plan, model, target, texts, round_, record)
            on_change()


def _targets(plan: Plan, model: ModelFile, record: Record) -> list[Target]:
    """The targets that can run here; records a line about each other one."""
    idle = set() if plan.clients_of(model) else {BARE}
    names = plan.targets - idle
    wanted = [t for t in TARGETS if t.name in names and model.kind in t.kinds]
    for target in wanted:
        if missing := target.missing(plan.setup):
            record.leave_out(f"{model.name}, {target.name}: {missing}")
    return [target for target in wanted if not target.missing(plan.setup)]


def _run_target(
    plan: Plan, model: ModelFile, target: Target, texts: Texts, round_: int, record: Record
) -> None:
    def note(scenario: str, values: Mapping[str, float]) -> None:
        record.add(scenario, model.name, target.name, round_, values)

    key = f"round {round_}"
    with target.start(model, plan.setup) as server:
        time.sleep(_SETTLE_S)
        scenarios.warm_up(server, texts, key)
        for clients in plan.clients_of(model):
            values = scenarios.distinct(server, texts, key, plan.scale, clients)
            note(distinct_name(clients), values)
        if isinstance(server, Server):
            for name in plan.scenarios_of(model, target):
                scenario = SERVER_SCENARIOS[name]
                note(name, asyncio.run(scenario(server, texts, f"{key} {name}", plan.scale)))
        note(STANDING, scenarios.standing(server, plan.scale))


def _run_system(plan: Plan, round_: int, record: Record) -> None:
    """One round of the scenarios for this server only."""
    print(f"our server, round {round_ + 1}", flush=True)
    scale = plan.system_scale
    with _noting_failure(record, f"our server, round {round_ + 1}"):
        if plan.scenarios & {OVERHEAD, JOBS, STREAMS}:
            _run_on_fake(plan, round_, record)
        if IDLE in plan.scenarios:
            record.add(IDLE, "demo", OURS, round_, system.measure_idle(scale))
        if WORKER_MEMORY in plan.scenarios:
            for model in plan.models:
                if model.shape is not None:
                    values = system.measure_worker_memory(model)
                    record.add(WORKER_MEMORY, model.name, OURS, round_, values)


def _run_on_fake(plan: Plan, round_: int, record: Record) -> None:
    scale = plan.system_scale
    with running_instance() as instance:
        instance.load(FAKE, slots=_FAKE_SLOTS)
        measures: dict[str, Callable[[], dict[str, float]]] = {
            OVERHEAD: lambda: measure_overhead(instance, scale.hop_samples),
            JOBS: lambda: system.measure_jobs(instance, scale),
            STREAMS: lambda: system.measure_streams(instance, scale),
        }
        for name, measure in measures.items():
            if name in plan.scenarios:
                record.add(name, FAKE, OURS, round_, measure())


@contextlib.contextmanager
def _noting_failure(record: Record, what: str) -> Iterator[None]:
    """Record a failure for the report; the other targets still run."""
    try:
        yield
    except (BenchError, OSError, EOFError, httpx.HTTPError) as error:
        print(f"{what}: {error}", flush=True)
        first_line, _, _ = str(error).partition("\n")
        record.failures.append(f"{what}: {first_line or type(error).__name__}")
