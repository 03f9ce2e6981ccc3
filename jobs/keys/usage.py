"""What callers have used, since ever and by day and model. The scripts that end jobs count it.

Two kinds of hashes (``object_names.USAGE``), of which the second is kept for 90 days: ``<what>
<caller>`` -> number, and for a day ``<what> <caller> <model>`` -> number.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta

from jobs.storage import object_names
from jobs.storage.connection import SyncRedis
from jobs.storage.lua.key_scripts import KEPT_S

KEPT_DAYS = KEPT_S // 86400
_EPOCH = date(1970, 1, 1)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Usage:
    """Numbers of ended jobs and of their tokens."""

    finished: int = 0
    failed: int = 0
    cancelled: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0

    def add(self, other: Usage) -> None:
        """Add the other's numbers to these."""
        for name in _WHATS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


_WHATS = frozenset(field.name for field in fields(Usage))


@dataclass(frozen=True, slots=True)
class Used:
    """What a caller has used of a model on a day (UTC)."""

    day: date
    caller: str
    model: str
    usage: Usage


def read_usage(redis: SyncRedis, first: date, last: date) -> list[Used]:
    """What was used on the days from ``first`` to ``last``, both included."""
    days = [first + timedelta(n) for n in range((last - first).days + 1)]
    with redis.pipeline(transaction=False) as pipe:
        for day in days:
            pipe.hgetall(object_names.usage_key((day - _EPOCH).days))
        found = pipe.execute(raise_on_error=False)
    return [
        Used(day, caller, model, usage)
        for day, answer in zip(days, found, strict=True)
        if isinstance(answer, dict)
        for (caller, model), usage in _parsed(answer, 3).items()
    ]


def read_totals(redis: SyncRedis) -> dict[str, Usage]:
    """What each caller has used since Redis' data were made."""
    found = _parsed(redis.hgetall(object_names.USAGE), 2)
    return {caller: usage for (caller,), usage in found.items()}


def _parsed(answer: Mapping[bytes, bytes], num_words: int) -> dict[tuple[str, ...], Usage]:
    """The numbers by the words behind their names. Unreadable fields are logged and skipped."""
    found: dict[tuple[str, ...], Usage] = defaultdict(Usage)
    for what, rest, number in _fields(answer, num_words):
        usage = found[rest]
        setattr(usage, what, getattr(usage, what) + number)
    return found


def _fields(
    answer: Mapping[bytes, bytes], num_words: int
) -> Iterator[tuple[str, tuple[str, ...], int]]:
    for name, value in answer.items():
        try:
            what, *rest = name.decode().split(" ", num_words - 1)
            number = int(float(value))
        except (ValueError, OverflowError):
            what, rest, number = "", [], 0
        if what not in _WHATS or len(rest) != num_words - 1:
            log.warning("usage is unreadable", extra={"field": repr(name), "value": repr(value)})
            continue
        yield what, tuple(rest), number


def today() -> date:
    """The day now, in UTC, as the scripts count."""
    return datetime.fromtimestamp(time.time(), UTC).date()


def summed(used: Iterable[Used], by: Iterable[str]) -> dict[tuple[str, ...], Usage]:
    """The sums over all that ``by`` does not name: of ``day``, ``caller`` and ``model``."""
    found: dict[tuple[str, ...], Usage] = defaultdict(Usage)
    wanted = tuple(by)
    for one in used:
        found[tuple(str(getattr(one, name)) for name in wanted)].add(one.usage)
    return found
