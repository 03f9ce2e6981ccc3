"""Back-off for worker restarts: none after the first crash, then increasing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

_MAX_DELAY_S = 30.0
_FORGET_AFTER_S = 120.0


@dataclass(slots=True)
class _Crashes:
    count: int = 0
    last_at: float = 0.0
    last_token: str = ""


class RestartPolicy:
    """Back-off per slug: 0, 1, 2, 4 ... 30 s. Reset after two minutes without a crash."""

    def __init__(self) -> None:
        self._crashes: dict[str, _Crashes] = {}
        self._failed_starts: dict[str, _Crashes] = {}
        self._totals: Counter[str] = Counter()

    @property
    def totals(self) -> dict[str, int]:
        """All crashes by slug, never reset while the model is desired or runs."""
        return dict(self._totals)

    def note_crash(self, slug: str, token: str) -> None:
        """Count the crash of the worker with that token. Repeated calls count once."""
        crashes = self._crashes.setdefault(slug, _Crashes())
        if crashes.last_token == token:
            return
        now = time.monotonic()
        if now - crashes.last_at > _FORGET_AFTER_S:
            crashes.count = 0
        crashes.count += 1
        self._totals[slug] += 1
        crashes.last_at, crashes.last_token = now, token

    def note_failed_start(self, slug: str) -> None:
        """Count a process that could not be started. It has a back-off of its own."""
        crashes = self._failed_starts.setdefault(slug, _Crashes())
        crashes.count += 1
        crashes.last_at = time.monotonic()

    def note_start(self, slug: str) -> None:
        """Reset the back-off of failed starts."""
        self._failed_starts.pop(slug, None)

    def forget(self, slug: str) -> None:
        self._crashes.pop(slug, None)
        self._failed_starts.pop(slug, None)

    def keep_only(self, slugs: Collection[str]) -> None:
        """Forget all models but these."""
        for known in (self._crashes, self._failed_starts, self._totals):
            for slug in set(known).difference(slugs):
                del known[slug]

    def num_crashes(self, slug: str) -> int:
        crashes = self._crashes.get(slug)
        return crashes.count if crashes else 0

    def may_start(self, slug: str) -> bool:
        crashes, failed = self._crashes.get(slug), self._failed_starts.get(slug)
        now = time.monotonic()
        is_crash_over = crashes is None or now >= crashes.last_at + delay_s(crashes.count)
        return is_crash_over and (failed is None or now >= failed.last_at + delay_s(failed.count))


def delay_s(num_crashes: int) -> float:
    """Back-off in seconds after that many crashes in a row."""
    return 0.0 if num_crashes <= 1 else min(_MAX_DELAY_S, 2.0 ** min(num_crashes - 2, 10))
