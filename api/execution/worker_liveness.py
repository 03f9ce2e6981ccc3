"""Detects models without a worker and without a supervisor that would start one."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum

from redis.exceptions import RedisError

from jobs import asyncio_tasks
from jobs.storage import names
from jobs.storage.connection import SyncRedis
from jobs.storage.contact import RedisContact
from jobs.storage.desired_models import DesiredModels
from jobs.storage.store import JobStore

_INTERVAL_S = 1.0


class Missing(StrEnum):
    """Why no worker will be started for a model without one. The value is part of error texts."""

    SUPERVISOR = "no supervisor is running"
    MACHINE = "no machine runs the model"


FindAbsent = Callable[[list[str]], Awaitable[Mapping[str, Missing]]]
"""Of the given slugs, those without a worker and without a supervisor that would start one."""
OnAbsence = Callable[[int, Missing], None]

log = logging.getLogger(__name__)


class WorkerLiveness:
    """Checks once a second for all client jobs of this process, while there are any.

    The listeners of an absent model get the number of checks in a row that found it absent, and
    what is missing. A check that fails, or while ``contact`` is not stable, resets all counts.
    """

    def __init__(self, find_absent: FindAbsent, contact: RedisContact) -> None:
        self._find_absent = find_absent
        self._contact = contact
        self._listeners: dict[str, set[OnAbsence]] = defaultdict(set)
        self._counts: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, slug: str, on_absence: OnAbsence) -> None:
        self._listeners[slug].add(on_absence)
        if self._task is None:
            self._task = asyncio_tasks.keep_running(self._run, "worker-liveness")

    def discard(self, slug: str, on_absence: OnAbsence) -> None:
        self._listeners[slug].discard(on_absence)
        if not self._listeners[slug]:
            del self._listeners[slug]

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        """Run while there are listeners. After an exception the counts begin again."""
        self._counts = {}
        while self._listeners:
            await asyncio.sleep(_INTERVAL_S)
            missing = await self._missing()
            self._counts = {slug: self._counts.get(slug, 0) + 1 for slug in missing}
            for slug, what in missing.items():
                self._notify(slug, what)
        self._task = None

    async def _missing(self) -> Mapping[str, Missing]:
        try:
            missing = await self._find_absent(list(self._listeners))
        except RedisError:
            return {}
        self._contact.note_answer()
        return missing if self._contact.is_stable else {}

    def _notify(self, slug: str, what: Missing) -> None:
        for on_absence in list(self._listeners.get(slug, ())):
            try:
                on_absence(self._counts[slug], what)
            except Exception:
                log.exception("a listener of absences failed", extra={"slug": slug})


def absent_models(
    store: JobStore, desired_models: DesiredModels, slugs: list[str]
) -> dict[str, Missing]:
    """Of the slugs, those without a worker and without a live supervisor that would start one.

    Synchronous.
    """
    absent = [slug for slug in slugs if not _is_alive(store.redis, slug)]
    if not absent:
        return {}
    nodes = desired_models.nodes()
    if not nodes:
        return dict.fromkeys(absent, Missing.SUPERVISOR)
    # Those wait for memory or for another load, as long as the supervisor lets them.
    waiting = {slug for node in nodes for slug in node.waiting} | _parked(desired_models, absent)
    return dict.fromkeys(set(absent) - waiting, Missing.MACHINE)


def _parked(desired_models: DesiredModels, slugs: list[str]) -> set[str]:
    every = desired_models.all()
    return {slug for slug in slugs if slug in every and every[slug].is_parked}


def _is_alive(redis: SyncRedis, slug: str) -> bool:
    heartbeat, owner = redis.mget(names.status_key(slug), names.owner_key(slug))
    if heartbeat is not None or owner is None:
        return heartbeat is not None
    node = owner.decode(errors="replace").partition("|")[0]
    return bool(redis.exists(names.node_key(node)))
