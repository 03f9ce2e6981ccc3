"""What all ended jobs add up to: counted by the scripts that end them, so each job once.

One Redis hash for all processes, ``mgs:totals``: ``jobs <task> <status> <model_id>`` -> number,
``<name of a sum> <model_id>`` -> sum.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from jobs.contract.events import Event
from jobs.storage import names
from jobs.storage.connection import SyncRedis
from jobs.storage.lua import state_scripts

log = logging.getLogger(__name__)


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
    """The totals in that hash; without fields that are none."""
    totals = Totals()
    for name, value in fields.items():
        try:
            _add(totals, name.decode(), value)
        except ValueError:  # put there by hand, or by another version
            log.warning("total is unreadable", extra={"field": repr(name), "value": repr(value)})
    return totals


def _add(totals: Totals, name: str, value: bytes) -> None:
    kind, _, rest = name.partition(" ")
    if kind == "jobs":
        task, status, model_id = rest.split(" ", 2)
        totals.jobs[task, status, model_id] = int(value)
    elif kind in _SUMS:
        amount = float(value)
        if not math.isfinite(amount):
            raise ValueError(f"{amount} is no amount")
        totals.sums[_SUMS[kind]][rest] = amount


MAX_FIELDS = 4096
OTHER = "(other)"
"""The model_id under which the totals of models that are long gone are kept."""


def fold_totals(redis: SyncRedis, slugs: Collection[str]) -> int:
    """Above ``MAX_FIELDS`` fields, add up those of models without any of these slugs.

    Answers how many fields were folded. Each is moved by one atomic step.
    """
    if redis.hlen(names.TOTALS) <= MAX_FIELDS:
        return 0
    fold = redis.register_script(state_scripts.FOLD_FIELD)
    folded = 0
    for name in redis.hkeys(names.TOTALS):
        target = _folded_name(name.decode(errors="replace"), slugs)
        if target is not None:
            fold(keys=[names.TOTALS], args=[name, target])
            folded += 1
    return folded


def _folded_name(field: str, slugs: Collection[str]) -> str | None:
    """The field's name without its model; ``None`` for one that stays."""
    num_words = 3 if field.startswith("jobs ") else 1
    *words, model_id = field.split(" ", num_words)
    if model_id == OTHER or len(words) < num_words or names.slug_of(model_id) in slugs:
        return None
    return " ".join([*words, OTHER])
