"""Which models have neither a worker nor a supervisor that would start one. Synchronous."""

from __future__ import annotations

from api.execution.worker_liveness import Missing
from jobs.storage import names
from jobs.storage.connection import SyncRedis
from jobs.storage.desired_models import DesiredModels
from jobs.storage.store import JobStore


def absent_models(
    store: JobStore, desired_models: DesiredModels, slugs: list[str]
) -> dict[str, Missing]:
    """Of the slugs, those without a worker and without a live supervisor that would start one."""
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
