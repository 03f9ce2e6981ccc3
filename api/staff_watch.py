"""Notices that nobody is there any more for a model: neither its worker nor any supervisor."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError

_INTERVAL_S = 1.0

Look = Callable[[list[str]], Awaitable[set[str]]]
OnAbsence = Callable[[int], None]


class StaffWatch:
    """One look a second for all jobs of this process, while there are any.

    ``look`` tells which of the slugs have no staff; whoever waits for one of those hears how many
    looks in a row found none. A look that fails proves nothing, and the count begins anew.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self._listeners: dict[str, set[OnAbsence]] = defaultdict(set)
        self._absences: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, slug: str, on_absence: OnAbsence) -> None:
        self._listeners[slug].add(on_absence)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="staff-watch")

    def discard(self, slug: str, on_absence: OnAbsence) -> None:
        self._listeners[slug].discard(on_absence)
        if not self._listeners[slug]:
            del self._listeners[slug]

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while self._listeners:
            await asyncio.sleep(_INTERVAL_S)
            try:
                absent = await self._look(list(self._listeners))
            except RedisError:
                absent = set()
            self._absences = {slug: self._absences.get(slug, 0) + 1 for slug in absent}
            for slug, count in self._absences.items():
                for on_absence in list(self._listeners.get(slug, ())):
                    on_absence(count)
        self._task = None
