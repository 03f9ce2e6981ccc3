"""Totals of all ended jobs. The scripts that end jobs count them, so each job counts once.

They are one Redis hash, ``mgs:totals``: ``jobs <task> <status> <model_id>`` -> number,
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
    """The sums per model. Times are in seconds. ``TIMED_JOBS`` counts the jobs with timings.

    The script that ends a job adds to the last four itself: lines of batches by status, and how
    often the job gave way.
    """

    PROMPT_TOKENS = "prompt_tokens"
    CACHED_TOKENS = "cached_tokens"
    GENERATED_TOKENS = "generated_tokens"
    TIMED_JOBS = "timed_jobs"
    QUEUE_S = "queue_s"
    PREFILL_S = "prefill_s"
    TTFT_S = "ttft_s"
    DECODE_S = "decode_s"
    LINES_FINISHED = "lines_finished"
    LINES_FAILED = "lines_failed"
    LINES_CANCELLED = "lines_cancelled"
    YIELDS = "yields"


_SUMS = {member.value: member for member in Sum}


@dataclass(frozen=True, slots=True)
class Totals:
    """``jobs``: (task, status, model_id) -> number; ``sums``: sum -> model_id -> value."""

    jobs: dict[tuple[str, str, str], int] = field(default_factory=dict)
    sums: dict[Sum, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))

    def only(self, model_ids: Collection[str]) -> Totals:
        """The totals of these models."""
        jobs = {name: number for name, number in self.jobs.items() if name[2] in model_ids}
        found = Totals(jobs)
        for kind, amounts in self.sums.items():
            found.sums[kind] = {name: n for name, n in amounts.items() if name in model_ids}
        return found


def amounts_of(event: Event) -> list[str | float]:
    """What a terminal event adds to the sums: name, amount, name, amount and so on."""
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
    """Read the totals, which go back to the creation of Redis' data."""
    return parse_totals(redis.hgetall(names.TOTALS))


def parse_totals(fields: Mapping[bytes, bytes]) -> Totals:
    """Parse the hash. Unreadable fields are logged and skipped."""
    totals = Totals()
    for name, value in fields.items():
        try:
            _add(totals, name.decode(), value)
        except ValueError:  # written by hand or by another version
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
            raise ValueError(f"{amount} is not finite")
        totals.sums[_SUMS[kind]][rest] = amount


MAX_FIELDS = 4096
OTHER = "(other)"
"""The model_id for the totals of former models."""


def fold_totals(redis: SyncRedis, slugs: Collection[str]) -> int:
    """If there are over ``MAX_FIELDS`` fields, add those of other models to ``OTHER``'s.

    ``slugs`` are the models whose fields stay. Each field is moved atomically. Returns how many.
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
    """The field with ``OTHER`` as its model, ``None`` for a field that stays."""
    num_words = 3 if field.startswith("jobs ") else 1
    *words, model_id = field.split(" ", num_words)
    if model_id == OTHER or len(words) < num_words or names.slug_of(model_id) in slugs:
        return None
    return " ".join([*words, OTHER])
