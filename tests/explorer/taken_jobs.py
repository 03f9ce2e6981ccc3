"""The jobs that a worker has, as its consumers name them in a take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.explorer.client import Request
from workers.scheduling.fair_use import Use

IN_HAND = Request(((b"IN-HAND",),))
"""Answered by the world instead of Redis: the jobs that the worker has at this moment."""


class GivenUse:
    """What a consumer's takes tell of the use of callers."""

    def __init__(self, use: Use) -> None:
        self.use = use

    def begin_take(self) -> Use:
        return self.use

    def end_take(self) -> None:
        """The world knows by itself when a round ends."""


class TakenJobs(set[str]):
    """The jobs that a consumer has taken in this round; the world has those of earlier rounds.

    A take names the jobs that the worker had as the round began. Some may have ended since; then
    the round finds fewer jobs.
    """

    def __init__(self, redis: Any, known: tuple[str, ...]) -> None:
        super().__init__()
        self._redis = redis
        self._known = known

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._known, *super().__iter__()}))

    def __rsub__(self, other: Any) -> set[str]:
        (known,) = self._redis.send(IN_HAND)
        return {job for job in other if job not in self and job.encode() not in known}
