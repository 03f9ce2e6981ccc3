"""The values of the live feed, and what has changed from one second to the next. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from jobs.contract.errors import ErrorInfo
from jobs.keys.caller import Caller


class LiveModel(msgspec.Struct, frozen=True, omit_defaults=True):
    """A desired model and its worker. Rates are tokens per second, from the last two heartbeats.

    ``ttft_ms`` and ``service_s`` (time in a slot) are means of the jobs that ended last;
    ``cached_share`` is the part of the prompt tokens read last that was in the prompt cache.
    ``held``: the classes of jobs that are on ``hold`` or in ``drain``.
    """

    id: str
    name: str
    backend: str
    state: str
    created_at: float
    fraction: float | None = None
    node: str = ""
    memory_bytes: int = 0
    reserved_bytes: int = 0
    prompt_cache_bytes: int = 0
    context_length: int = 0
    slots: int = 0
    running: int = 0
    sequences: int = 0
    cpu_percent: int = 0
    architecture: str = ""
    quantization: str = ""
    num_parameters: int | None = None
    started_at: float = 0.0
    is_parked: bool = False
    pinned: bool = False
    ttl_s: float | None = None
    error: ErrorInfo | None = None
    prefill_rate: float = 0.0
    decode_rate: float = 0.0
    ttft_ms: float | None = None
    cached_share: float | None = None
    service_s: float | None = None
    held: dict[str, str] = {}


class LiveJob(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job that waits (``phase`` is empty) or runs. ``key``: the name of its caller's key, or the
    start of its hash.

    ``rate``: generated tokens per second. ``prompt_chars``: length before the prompt is read.
    ``batch``: of which it is a line. ``yields``: how often it gave way to others.
    """

    id: str
    model: str
    task: str = ""
    api: str = ""
    phase: str = ""
    created_at: float = 0.0
    key: str = ""
    prompt_chars: int = 0
    prompt_tokens: int = 0
    prefilled: int = 0
    generated: int = 0
    rate: float = 0.0
    attempt: int = 0
    job_class: str = "interactive"
    priority: int = 0
    batch: str = ""
    yields: int = 0


class LiveQueue(msgspec.Struct, frozen=True):
    """Number of waiting jobs, and the ids of the first 100 that came, in their order."""

    waiting: int = 0
    order: list[str] = []


class LiveState(msgspec.Struct, frozen=True):
    """All that the feed shows at one time; models and queues by slug, jobs by id.

    ``queues`` have the interactive jobs and those of the control queue, ``batch_queues`` those of
    the class batch.
    ``budget_bytes``: the memory for all models of all machines, ``None`` where one has no limit.
    ``owners``: whose the jobs are; this is not shown.
    """

    models: dict[str, LiveModel] = {}
    queues: dict[str, LiveQueue] = {}
    jobs: dict[str, LiveJob] = {}
    supervisors: int = 0
    budget_bytes: int | None = None
    batch_queues: dict[str, LiveQueue] = {}
    owners: dict[str, str] = {}

    def shown(self) -> dict[str, Any]:
        """The fields of a snapshot."""
        fields = msgspec.structs.asdict(self)
        del fields["owners"]
        return fields


def visible_to(caller: Caller, state: LiveState) -> LiveState:
    """The part of the state that a caller may see: its own jobs, and the models of its key."""
    if caller.is_manager:
        return state
    models = {slug: one for slug, one in state.models.items() if caller.may_use(one.name)}
    own = {job_id for job_id, owner in state.owners.items() if caller.may_see(owner)}

    def visible(queues: Mapping[str, LiveQueue]) -> dict[str, LiveQueue]:
        return {
            slug: LiveQueue(queue.waiting, [job_id for job_id in queue.order if job_id in own])
            for slug, queue in queues.items()
            if slug in models
        }

    jobs = {job_id: job for job_id, job in state.jobs.items() if job_id in own}
    queues, batch_queues = visible(state.queues), visible(state.batch_queues)
    return msgspec.structs.replace(
        state, models=models, queues=queues, batch_queues=batch_queues, jobs=jobs
    )


def difference(old: LiveState, new: LiveState) -> dict[str, Any]:
    """What a reader of ``old`` needs to know ``new``; empty if nothing has changed."""
    found: dict[str, Any] = {
        "models": _changes(old.models, new.models),
        "models_gone": [slug for slug in old.models if slug not in new.models],
        "jobs": _changes(old.jobs, new.jobs),
        "jobs_gone": [job_id for job_id in old.jobs if job_id not in new.jobs],
        "queues": _moved_queues(old.queues, new.queues),
        "batch_queues": _moved_queues(old.batch_queues, new.batch_queues),
    }
    changed = {name: value for name, value in found.items() if value}
    for name in ("supervisors", "budget_bytes"):
        if getattr(old, name) != getattr(new, name):
            changed[name] = getattr(new, name)
    return changed


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Per entry: all fields of a new one, else those that differ."""
    found = {}
    for name, value in new.items():
        before = old.get(name)
        if before != value:
            found[name] = _changed_fields(before, value)
    return found


def _changed_fields(before: msgspec.Struct | None, value: msgspec.Struct) -> dict[str, Any]:
    if before is None:
        fields: dict[str, Any] = msgspec.to_builtins(value)
        return fields
    return {
        name: msgspec.to_builtins(getattr(value, name))
        for name in value.__struct_fields__
        if getattr(value, name) != getattr(before, name)
    }


def _moved_queues(
    old: Mapping[str, LiveQueue], new: Mapping[str, LiveQueue]
) -> dict[str, dict[str, Any]]:
    return {
        slug: {
            "waiting": queue.waiting,
            **_move(old[slug].order if slug in old else [], queue.order),
        }
        for slug, queue in new.items()
        if old.get(slug) != queue
    }


def _move(old: list[str], new: list[str]) -> dict[str, Any]:
    """``drop`` the first, then ``add`` to the end; the whole ``order`` after any other change."""
    if old == new:
        return {}
    num_gone = old.index(new[0]) if new and new[0] in old else len(old)
    kept = old[num_gone:]
    if kept == new[: len(kept)]:
        return {"drop": num_gone, "add": new[len(kept) :]}
    return {"order": new}
