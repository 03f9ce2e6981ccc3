"""Notices that nobody is there any more for a model: neither its worker nor who would start one."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum

from redis.exceptions import RedisError

from jobs import asyncio_tasks
from jobs.storage.contact import RedisContact

_INTERVAL_S = 1.0


class Missing(StrEnum):
    """Why nobody will start a worker for a model that has none."""

    SUPERVISOR = "no supervisor is running"
    MACHINE = "no machine runs the model"


Look = Callable[[list[str]], Awaitable[Mapping[str, Missing]]]
"""Of the slugs given, those without staff."""
OnAbsence = Callable[[int, Missing], None]

log = logging.getLogger(__name__)


class WorkerLiveness:
    """One look a second for all jobs of this process, while there are any.

    Whoever waits for a model without staff hears how many looks in a row found none, and what is
    missing. A look that fails proves nothing, nor does one while ``contact`` is not stable: the
    count begins anew.
    """

    def __init__(self, look: Look, contact: RedisContact) -> None:
        self._look = look
        self._contact = contact
        self._listeners: dict[str, set[OnAbsence]] = defaultdict(set)
        self._counts: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, slug: str, on_absence: OnAbsence) -> None:
        self._listeners[slug].add(on_absence)
        if self._task is None:
            self._task = asyncio_tasks.keep_running(self._run, "staff-watch")

    def discard(self, slug: str, on_absence: OnAbsence) -> None:
        self._listeners[slug].discard(on_absence)
        if not self._listeners[slug]:
            del self._listeners[slug]

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        """Until nobody listens; what breaks it down breaks off the counts too."""
        self._counts = {}
        while self._listeners:
            await asyncio.sleep(_INTERVAL_S)
            missing = await self._missing()
            self._counts = {slug: self._counts.get(slug, 0) + 1 for slug in missing}
            for slug, what in missing.items():
                self._tell(slug, what)
        self._task = None

    async def _missing(self) -> Mapping[str, Missing]:
        try:
            missing = await self._look(list(self._listeners))
        except RedisError:
            return {}
        self._contact.note_answer()
        return missing if self._contact.is_stable else {}

    def _tell(self, slug: str, what: Missing) -> None:
        for on_absence in list(self._listeners.get(slug, ())):
            try:
                on_absence(self._counts[slug], what)
            except Exception:
                log.exception("an absence could not be told", extra={"slug": slug})
