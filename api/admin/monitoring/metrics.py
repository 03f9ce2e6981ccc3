"""Metrics for Prometheus, read from Redis and the workers' heartbeats at each scrape.

Nothing is counted in this process, so that all API processes give the same values. A model's
metrics are labelled with its ``model_id``; ``mgs_model_info`` has the name of the current model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from api.admin.keys.usage_metrics import usage_families
from api.admin.monitoring.webhook_metrics import webhook_families
from api.execution.services import Services
from jobs.contract.records import JobClass, NodeStatus, WorkerStatus
from jobs.keys.usage import Usage
from jobs.keys.usage import read_totals as read_key_totals
from jobs.scheduling.holds import Hold, Holds
from jobs.storage.desired_models import LoadedModel
from jobs.storage.totals import Sum, Totals, read_totals
from jobs.webhooks.totals import DeliveryTotals, read_delivery_totals

_Samples = Iterable[tuple[list[str], float]]
_TOKENS = {
    Sum.PROMPT_TOKENS: ("mgs_prompt_tokens", "Prompt tokens of ended jobs."),
    Sum.CACHED_TOKENS: ("mgs_cached_tokens", "Prompt tokens that were in a prompt cache."),
    Sum.GENERATED_TOKENS: ("mgs_generated_tokens", "Generated tokens of ended jobs."),
}
_LINES = {
    "finished": Sum.LINES_FINISHED,
    "failed": Sum.LINES_FAILED,
    "cancelled": Sum.LINES_CANCELLED,
}
_TIMES = {
    Sum.QUEUE_S: ("mgs_queue_seconds", "Time from submission to admission."),
    Sum.PREFILL_S: ("mgs_prefill_seconds", "Time from admission to the end of the prompt."),
    Sum.TTFT_S: ("mgs_time_to_first_token_seconds", "Time from submission to the first token."),
    Sum.DECODE_S: ("mgs_decode_seconds", "Time from the first token to the last."),
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What its caller may see at one scrape.

    ``waiting``: (slug, "generation", "batch" or "control") -> jobs.
    """

    models: list[LoadedModel]
    nodes: list[NodeStatus]
    totals: Totals
    waiting: dict[tuple[str, str], int]
    usage: dict[str, Usage] = field(default_factory=dict)
    key_names: dict[str, str] = field(default_factory=dict)
    holds: dict[tuple[str, JobClass], Hold] = field(default_factory=dict)
    deliveries: DeliveryTotals = field(default_factory=DeliveryTotals)


def read_snapshot(services: Services) -> Snapshot:
    """Read the state. Synchronous; raises ``RedisError`` while Redis cannot be reached."""
    models, nodes = services.loaded_models(), services.desired_models.nodes()
    totals = read_totals(services.store.redis)
    if not services.caller.has_all_models:
        totals = totals.only({model.desired.model_id for model in models})
        nodes = [msgspec.structs.replace(node, crashes={}) for node in nodes]
    slugs = [model.slug for model in models]
    return Snapshot(
        models=models,
        nodes=nodes,
        totals=totals,
        waiting=services.store.num_waiting(slugs),
        holds=Holds(services.store.redis).read(slugs),
        usage=read_key_totals(services.store.redis),
        key_names=services.key_names(),
        deliveries=read_delivery_totals(services.store.redis),
    )


def metrics_text(snapshot: Snapshot) -> bytes:
    """The snapshot in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Fixed([*_families(snapshot)]))
    return generate_latest(registry)


class _Fixed(Collector):
    """A collector of given families."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _families(snapshot: Snapshot) -> Iterator[Metric]:
    yield _gauge("mgs_supervisors", "Machines with a supervisor.", [], [([], len(snapshot.nodes))])
    yield from _node_families(snapshot.nodes)
    yield from _model_families(snapshot.models)
    yield from _queue_families(snapshot)
    yield from _worker_families(snapshot)
    yield from _total_families(snapshot.totals)
    yield from usage_families(snapshot.usage, snapshot.key_names)
    yield from webhook_families(snapshot.deliveries)


def _node_families(nodes: list[NodeStatus]) -> Iterator[Metric]:
    budgets: Counter[str] = Counter()  # machines may have the same name
    reserved: Counter[str] = Counter()
    for node in nodes:
        reserved[node.node] += sum(node.reserved.values())
        if node.budget_bytes is not None:
            budgets[node.node] += node.budget_bytes
    for name, help_text, sums in (
        ("mgs_memory_budget_bytes", "Memory for all models of a machine together.", budgets),
        ("mgs_memory_reserved_bytes", "Memory set aside for models with a process.", reserved),
    ):
        yield _gauge(name, help_text, ["node"], [([key], value) for key, value in sums.items()])


def _model_families(models: list[LoadedModel]) -> Iterator[Metric]:
    info = [
        ([m.desired.model_id, m.desired.load.model_name, m.desired.load.backend, m.state], 1.0)
        for m in models
    ]
    labels = ["model_id", "model", "backend", "state"]
    yield _gauge("mgs_model_info", "The desired models, and their state.", labels, info)


def _queue_families(snapshot: Snapshot) -> Iterator[Metric]:
    ids = {model.slug: model.desired.model_id for model in snapshot.models}
    waiting = [([ids[slug], queue], num) for (slug, queue), num in snapshot.waiting.items()]
    help_text = "Jobs that wait in a queue."
    yield _gauge("mgs_jobs_waiting", help_text, ["model_id", "queue"], waiting)
    running = [([m.desired.model_id, name], n) for m in snapshot.models for name, n in _running(m)]
    labels = ["model_id", "class"]
    yield _gauge("mgs_jobs_running", "Jobs that a worker has claimed.", labels, running)
    held = [([ids[slug], name, hold.state], 1.0) for (slug, name), hold in snapshot.holds.items()
            if hold.state != "open"]  # fmt: skip
    help_text = "Classes that are on hold, or drained."
    yield _gauge("mgs_queue_held", help_text, ["model_id", "class", "state"], held)
    sequences = _of_workers(snapshot.models, lambda status: status.sequences)
    yield _gauge("mgs_sequences_running", "Sequences of those jobs.", ["model_id"], sequences)
    slots = _of_workers(snapshot.models, lambda status: status.slots)
    yield _gauge("mgs_slots", "Sequences that run at once.", ["model_id"], slots)


def _worker_families(snapshot: Snapshot) -> Iterator[Metric]:
    gauges = {
        "mgs_worker_memory_bytes": ("Memory that the process costs.", lambda s: s.memory_bytes),
        "mgs_worker_prompt_cache_bytes": (
            "Kept prompts, a part of the memory.",
            lambda s: s.prompt_cache_bytes,
        ),
        "mgs_worker_cpu_ratio": ("CPU use; 1: one core.", lambda s: s.cpu_percent / 100),
        "mgs_worker_idle_seconds": (
            "Time since the last step while there is work.",
            lambda s: s.idle_s,
        ),
        "mgs_worker_start_time_seconds": ("Start, in epoch seconds.", lambda s: s.started_at),
    }
    for name, (help_text, value) in gauges.items():
        yield _gauge(name, help_text, ["model_id"], _of_workers(snapshot.models, value))
    reread = _of_workers(snapshot.models, lambda status: status.reread_tokens)
    help_text = "Prompt tokens that jobs which gave way read again, since their worker's start."
    yield _counter("mgs_reread_tokens", help_text, ["model_id"], reread)
    ids = {model.slug: model.desired.model_id for model in snapshot.models}
    crashes = [
        ([node.node, ids.get(slug, slug)], num)
        for node in snapshot.nodes
        for slug, num in node.crashes.items()
    ]
    help_text = "Workers that died, since the start of their supervisor."
    yield _counter("mgs_worker_crashes", help_text, ["node", "model_id"], crashes)


def _total_families(totals: Totals) -> Iterator[Metric]:
    ended = [
        ([model_id, task.removeprefix("mgs."), status], num)
        for (task, status, model_id), num in totals.jobs.items()
    ]
    labels = ["model_id", "task", "status"]
    yield _counter("mgs_jobs_ended", "Jobs that have ended.", labels, ended)
    for kind, (name, help_text) in _TOKENS.items():
        amounts = [([model_id], amount) for model_id, amount in totals.sums[kind].items()]
        yield _counter(name, help_text, ["model_id"], amounts)
    lines = [
        ([model_id, status], amount)
        for status, kind in _LINES.items()
        for model_id, amount in totals.sums[kind].items()
    ]
    yield _counter("mgs_batch_lines", "Ended lines of batches.", ["model_id", "status"], lines)
    yields = [([model_id], amount) for model_id, amount in totals.sums[Sum.YIELDS].items()]
    help_text = "How often ended jobs had given way to others."
    yield _counter("mgs_yields", help_text, ["model_id"], yields)
    counts = totals.sums[Sum.TIMED_JOBS]
    for kind, (name, help_text) in _TIMES.items():
        summary = SummaryMetricFamily(name, help_text, labels=["model_id"])
        for model_id, count in counts.items():
            seconds = totals.sums[kind].get(model_id, 0.0)
            summary.add_metric([model_id], count_value=int(count), sum_value=seconds)
        yield summary


def _running(model: LoadedModel) -> list[tuple[str, int]]:
    """The number of running jobs by class."""
    if model.status is None:
        return []
    num_batch = sum(job.job_class == "batch" for job in model.status.jobs)
    return [("interactive", max(0, model.status.running - num_batch)), ("batch", num_batch)]


def _of_workers(models: list[LoadedModel], value: Callable[[WorkerStatus], float]) -> _Samples:
    return [([m.desired.model_id], value(m.status)) for m in models if m.status is not None]


def _gauge(name: str, help_text: str, labels: list[str], samples: _Samples) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for values, amount in samples:
        family.add_metric(values, amount)
    return family


def _counter(name: str, help_text: str, labels: list[str], samples: _Samples) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=labels)
    for values, amount in samples:
        family.add_metric(values, amount)
    return family
