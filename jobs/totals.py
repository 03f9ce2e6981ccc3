"""What all ended jobs add up to: counted by the scripts that end them, so each job once.

One Redis hash for all processes, ``mgs:totals``: ``jobs <task> <status> <model_id>`` -> number,
``<name of a sum> <model_id>`` -> sum.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from jobs import names
from jobs.connection import SyncRedis
from jobs.events import Event


class Sum(StrEnum):
    """What is summed up per model; times in seconds, ``TIMED_JOBS`` counts those that have any."""

    PROMPT_TOKENS = "prompt_tokens"
    CACHED_TOKENS = "cached_tokens"
    GENERATED_TOKENS = "generated_tokens"
    TIMED_JOBS = "timed_jobs"
    QUEUE_S = "queue_s"
    PREFILL_S = "prefill_s"
    TTFT_S = "ttft_s"
    DECODE_S = "decode_s"


_SUMS = {member.value: member for member in Sum}


@dataclass(frozen=True, slots=True)
class Totals:
    """``jobs``: (task, status, model_id) -> number; ``sums``: per sum, by model_id."""

    jobs: dict[tuple[str, str, str], int] = field(default_factory=dict)
    sums: dict[Sum, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))


def amounts_of(event: Event) -> list[str | float]:
    """Name and amount, in turn, of each sum that a job with this end adds to."""
    found: dict[Sum, float] = {}
    if (usage := event.usage) is not None:
        found[Sum.PROMPT_TOKENS] = usage.prompt_tokens
        found[Sum.CACHED_TOKENS] = usage.cached_tokens
        found[Sum.GENERATED_TOKENS] = usage.completion_tokens
    if (timings := event.timings) is not None:
        found[Sum.TIMED_JOBS] = 1
        found[Sum.QUEUE_S] = timings.queue_ms / 1000
        found[Sum.PREFILL_S] = timings.prefill_ms / 1000
        found[Sum.TTFT_S] = timings.ttft_ms / 1000
        found[Sum.DECODE_S] = timings.decode_ms / 1000
    return [part for name, amount in found.items() if amount for part in (name.value, amount)]


def read_totals(redis: SyncRedis) -> Totals:
    """The totals since Redis has its data."""
    return parse_totals(redis.hgetall(names.TOTALS))


def parse_totals(fields: Mapping[bytes, bytes]) -> Totals:
    """The totals in that hash."""
    totals = Totals()
    for key, value in fields.items():
        name, _, rest = key.decode().partition(" ")
        if name == "jobs":
            task, status, model_id = rest.split(" ", 2)
            totals.jobs[task, status, model_id] = int(value)
        elif name in _SUMS:
            totals.sums[_SUMS[name]][rest] = float(value)
    return totals
