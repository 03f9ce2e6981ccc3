"""The desired models in Redis, and the heartbeats of workers and nodes."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from jobs.contract.errors import ContractError
from jobs.contract.records import (
    DesiredModel,
    NodeStatus,
    WorkerState,
    WorkerStatus,
    change_record,
    decode_record,
    encode_record,
)
from jobs.storage import names
from jobs.storage.connection import AsyncRedis, SyncRedis
from jobs.storage.lua import state_scripts

HEARTBEAT_TTL_S = 5
_NODE_REMEMBERED_S = 60
_FOR_EVER_S = 10**9

log = logging.getLogger(__name__)
_Record = TypeVar("_Record", DesiredModel, WorkerStatus, NodeStatus)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A desired model and its worker's last heartbeat, ``None`` while no worker is up."""

    desired: DesiredModel
    status: WorkerStatus | None

    @property
    def slug(self) -> str:
        return names.slug_of(self.desired.model_id)

    @property
    def state(self) -> str:
        """``parked``, the worker's state, or ``starting`` before its first heartbeat."""
        if self.desired.is_parked:
            return "parked"
        return (self.status.state if self.status else WorkerState.STARTING).value

    @property
    def expires_at(self) -> float | None:
        """When an unused model will be parked, epoch seconds; ``None``: not planned."""
        ttl_s, status = self.desired.ttl_s, self.status
        if ttl_s is None or status is None or self.desired.pinned or self.desired.is_parked:
            return None
        return time.time() + max(0.0, ttl_s - status.unused_s)


@dataclass(frozen=True, slots=True)
class DesiredSnapshot:
    """The desired models by slug, ordered by model id.

    ``unreadable`` has the slugs of entries that this version cannot read, perhaps because a newer
    version wrote them. Their models are neither started nor stopped. ``raw`` holds all entries.
    """

    desired_models: dict[str, DesiredModel]
    unreadable: frozenset[str]
    raw: dict[bytes, bytes]


class DesiredModels:
    """Compare-and-set access to the desired models, and access to the heartbeats.

    Entries are compared as bytes. Fields that this version does not know survive a change.
    """

    def __init__(self, redis: SyncRedis) -> None:
        self._redis = redis
        self._swap = redis.register_script(state_scripts.SWAP_FIELD)
        self._heartbeat_node = redis.register_script(state_scripts.HEARTBEAT_NODE)

    def get(self, slug: str) -> DesiredModel | None:
        """The entry, ``None`` without one. Raises ``ContractError`` when it cannot be read."""
        data = self._redis.hget(names.DESIRED_MODELS, slug)
        return decode_record(DesiredModel, data) if data else None

    def all(self) -> dict[str, DesiredModel]:
        """The readable entries by slug, ordered by model id."""
        return read_snapshot(self._redis.hgetall(names.DESIRED_MODELS)).desired_models

    def marked(self, known: Mapping[bytes, bytes] | None = None) -> tuple[str, DesiredSnapshot]:
        """The storage mark and all entries. The mark is "" when Redis is new or lost its data.

        With ``known``, the same transaction first restores missing entries and sets a mark if there
        is none.
        """
        with self._redis.pipeline() as pipe:
            for slug, data in (known or {}).items():
                pipe.hsetnx(names.DESIRED_MODELS, slug, data)
            if known is not None:
                pipe.set(names.STORAGE_MARK, secrets.token_hex(8), nx=True)
            pipe.get(names.STORAGE_MARK)
            pipe.hgetall(names.DESIRED_MODELS)
            *_, mark, found = pipe.execute()
        return (mark or b"").decode(errors="replace"), read_snapshot(found)

    def put(self, slug: str, desired: DesiredModel) -> bool:
        """Add a desired model and wake the supervisors. False when the id is in use."""
        return self._write(slug, b"", encode_record(desired))

    def change(self, slug: str, uid: str, **fields: Any) -> DesiredModel | None:
        """Change fields of the entry with that uid. ``None`` when there is none any more."""
        while raw := self._redis.hget(names.DESIRED_MODELS, slug):
            if decode_record(DesiredModel, raw).uid != uid:
                return None
            changed = change_record(raw, **fields)
            if self._write(slug, raw, changed):
                return decode_record(DesiredModel, changed)
        return None

    def resume(self, slug: str, uid: str, load_job: str, **fields: Any) -> DesiredModel | None:
        """Make a parked model resident, and change ``fields``. ``None`` if it is gone.

        A model that has been ready gets the new ``load_job``. One that is resident keeps its own:
        its worker takes no other.
        """
        while raw := self._redis.hget(names.DESIRED_MODELS, slug):
            current = decode_record(DesiredModel, raw)
            if current.uid != uid:
                return None
            changes = dict(fields)
            if current.is_parked:
                changes["is_parked"] = False
                changes["load_job"] = load_job if current.was_ready else current.load_job
            changed = change_record(raw, **changes)
            if self._write(slug, raw, changed):
                return decode_record(DesiredModel, changed)
        return None

    def remove(self, slug: str, uid: str | None = None) -> DesiredModel | None:
        """Remove the entry, if it has that uid. ``None`` when nothing was removed.

        Raises ``ContractError`` when the entry cannot be read; ``discard`` removes such an entry.
        """
        while raw := self._redis.hget(names.DESIRED_MODELS, slug):
            desired = decode_record(DesiredModel, raw)
            if uid is not None and desired.uid != uid:
                return None
            if self._write(slug, raw, b""):
                return desired
        return None

    def discard(self, slug: str) -> None:
        """Remove an entry, readable or not."""
        self._redis.hdel(names.DESIRED_MODELS, slug)
        self.notify()

    def exists(self, slug: str) -> bool:
        """Whether there is an entry, readable or not."""
        return bool(self._redis.hexists(names.DESIRED_MODELS, slug))

    def _write(self, slug: str, before: bytes, after: bytes) -> bool:
        is_done = bool(self._swap(keys=[names.DESIRED_MODELS], args=[slug, before, after])[0])
        if is_done:
            self.notify()
        return is_done

    def notify(self) -> None:
        """Wake the supervisors."""
        self._redis.publish(names.WAKEUP, b"")

    def loaded(self) -> list[LoadedModel]:
        """Every desired model with its worker's heartbeat."""
        desired_models = self.all()
        statuses = self.statuses(list(desired_models))
        return [
            LoadedModel(desired, statuses.get(slug)) for slug, desired in desired_models.items()
        ]

    def statuses(self, slugs: Sequence[str]) -> dict[str, WorkerStatus]:
        """The readable heartbeats of the models' workers, by slug."""
        if not slugs:
            return {}
        found = self._redis.mget([names.status_key(slug) for slug in slugs])
        read = {slug: _read(WorkerStatus, data) for slug, data in zip(slugs, found, strict=True)}
        return {slug: status for slug, status in read.items() if status is not None}

    def with_heartbeat(self, slugs: Sequence[str]) -> set[str]:
        """The slugs that have a worker's heartbeat, readable or not."""
        if not slugs:
            return set()
        found = self._redis.mget([names.status_key(slug) for slug in slugs])
        return {slug for slug, data in zip(slugs, found, strict=True) if data}

    def heartbeat(self, slug: str, status: WorkerStatus) -> None:
        """Write a worker's heartbeat. It expires after ``HEARTBEAT_TTL_S``."""
        self._redis.set(names.status_key(slug), encode_record(status), ex=HEARTBEAT_TTL_S)

    def forget_status(self, slug: str) -> None:
        self._redis.delete(names.status_key(slug))

    def heartbeat_node(self, status: NodeStatus, *, is_forgetting: bool = True) -> None:
        """Write a supervisor's heartbeat.

        With ``is_forgetting``, nodes without a heartbeat for a minute leave the index.
        """
        keys = [names.node_key(status.uid), names.NODE_INDEX]
        remembered_s = _NODE_REMEMBERED_S if is_forgetting else _FOR_EVER_S
        args = [status.uid, encode_record(status), HEARTBEAT_TTL_S, remembered_s]
        self._heartbeat_node(keys=keys, args=args)

    def forget_node(self, uid: str) -> None:
        """Remove the heartbeat of a supervisor that shuts down."""
        with self._redis.pipeline() as pipe:
            pipe.delete(names.node_key(uid))
            pipe.zrem(names.NODE_INDEX, uid)
            pipe.execute()

    def node(self, uid: str) -> NodeStatus | None:
        """The node's heartbeat, ``None`` when it is missing or unreadable."""
        return _read(NodeStatus, self._redis.get(names.node_key(uid)))

    def known_nodes(self) -> list[str]:
        """Uids of the nodes with a heartbeat within about the last minute."""
        return [uid.decode(errors="replace") for uid in self._redis.zrange(names.NODE_INDEX, 0, -1)]

    def nodes(self) -> list[NodeStatus]:
        """The heartbeats of all nodes whose supervisor is alive."""
        known = self.known_nodes()
        found = self._redis.mget([names.node_key(uid) for uid in known]) if known else []
        read = (_read(NodeStatus, data) for data in found)
        return [status for status in read if status is not None]


async def read_desired_models(redis: AsyncRedis) -> dict[str, DesiredModel]:
    """``DesiredModels.all`` for asyncio."""
    return read_snapshot(await redis.hgetall(names.DESIRED_MODELS)).desired_models


async def note_unload(redis: AsyncRedis, slug: str, desired: DesiredModel, ttl_s: int) -> None:
    """Note an unloaded model. Call it before removing the entry: readers find one of the two."""
    await redis.set(names.unloaded_key(slug), encode_record(desired), ex=ttl_s)


async def last_unloaded(redis: AsyncRedis, slug: str) -> DesiredModel | None:
    """The last unloaded model of the slug, ``None`` if its note expired or is unreadable."""
    data = await redis.get(names.unloaded_key(slug))
    try:
        return decode_record(DesiredModel, data) if data else None
    except ContractError:
        return None


async def is_storage_marked(redis: AsyncRedis) -> bool:
    """False if no supervisor has used this Redis yet, or if it has lost its data since."""
    return bool(await redis.exists(names.STORAGE_MARK))


def read_snapshot(raw: Mapping[bytes, bytes]) -> DesiredSnapshot:
    """Decode the entries of the hash."""
    desired_models, unreadable = {}, set()
    for field, data in raw.items():
        slug = field.decode(errors="replace")
        desired = _read(DesiredModel, data)
        if desired is None:
            unreadable.add(slug)
        else:
            desired_models[slug] = desired
    ordered = dict(sorted(desired_models.items(), key=lambda item: _id_order(item[1].model_id)))
    return DesiredSnapshot(ordered, frozenset(unreadable), dict(raw))


def _read(kind: type[_Record], data: bytes | None) -> _Record | None:
    """Decode one record. An unreadable one is logged and must not hide the others."""
    if not data:
        return None
    try:
        return decode_record(kind, data)
    except ContractError as error:
        # Written by another version or by hand.
        log.warning("record is unreadable", extra={"kind": kind.__name__, "error": error.message})
        return None


def _id_order(model_id: str) -> tuple[int, int, str]:
    """Sort key: numbers by value, before all other ids."""
    is_number = model_id.isascii() and model_id.isdigit()
    return (0, int(model_id), "") if is_number else (1, 0, model_id)
