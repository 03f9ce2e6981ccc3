"""What should be loaded, and who is there to load it: wants, workers' beats, nodes' beats."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs import names, scripts
from jobs.connection import AsyncRedis, SyncRedis
from jobs.errors import ContractError
from jobs.records import NodeStatus, Want, WorkerStatus, decode_record, encode_record

BEAT_TTL_S = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A wanted model and what its worker last said; no status: the worker is not up (yet)."""

    want: Want
    status: WorkerStatus | None

    @property
    def slug(self) -> str:
        return names.slug_of(self.want.model_id)


class Wants:
    """Compare-and-set access to the wanted state, and the beats beside it."""

    def __init__(self, redis: SyncRedis) -> None:
        self._redis = redis
        self._swap = redis.register_script(scripts.SWAP_FIELD)

    def get(self, slug: str) -> Want | None:
        data = self._redis.hget(names.WANTS, slug)
        return decode_record(Want, data) if data else None

    def all(self) -> dict[str, Want]:
        """Wants by slug, in the order of their model ids."""
        return _ordered(self._redis.hgetall(names.WANTS))

    def marked(self, known: Mapping[str, Want] | None = None) -> tuple[str, dict[str, Want]]:
        """The storage's mark ("": it is new, or has lost everything), and all wants.

        With ``known`` what is missing of it is put back first, and a mark drawn; all at once.
        """
        with self._redis.pipeline() as pipe:
            for slug, want in (known or {}).items():
                pipe.hsetnx(names.WANTS, slug, encode_record(want))
            if known is not None:
                pipe.set(names.STORAGE_MARK, secrets.token_hex(8), nx=True)
            pipe.get(names.STORAGE_MARK)
            pipe.hgetall(names.WANTS)
            *_, mark, found = pipe.execute()
        return (mark or b"").decode(), _ordered(found)

    def swap(self, slug: str, old: Want | None, new: Want | None) -> bool:
        """Replace ``old`` by ``new`` (``None``: absent) if it is still what stands; ring."""
        before = encode_record(old) if old else b""
        after = encode_record(new) if new else b""
        is_done = bool(self._swap(keys=[names.WANTS], args=[slug, before, after])[0])
        if is_done:
            self.ring()
        return is_done

    def ring(self) -> None:
        """Tell the supervisors to look now."""
        self._redis.publish(names.BELL, b"")

    def loaded(self) -> list[LoadedModel]:
        """Every wanted model with its worker's beat."""
        wants = self.all()
        statuses = self.statuses(list(wants))
        return [LoadedModel(want, statuses.get(slug)) for slug, want in wants.items()]

    def statuses(self, slugs: Sequence[str]) -> dict[str, WorkerStatus]:
        if not slugs:
            return {}
        found = self._redis.mget([names.status_key(slug) for slug in slugs])
        return {
            slug: decode_record(WorkerStatus, data)
            for slug, data in zip(slugs, found, strict=True)
            if data
        }

    def beat(self, slug: str, status: WorkerStatus) -> None:
        """Say that the worker of ``slug`` is alive; forgotten after ``BEAT_TTL_S``."""
        self._redis.set(names.status_key(slug), encode_record(status), ex=BEAT_TTL_S)

    def forget_status(self, slug: str) -> None:
        self._redis.delete(names.status_key(slug))

    def beat_node(self, status: NodeStatus) -> None:
        with self._redis.pipeline() as pipe:
            pipe.set(names.node_key(status.node), encode_record(status), ex=BEAT_TTL_S)
            pipe.sadd(names.NODES, status.node)
            pipe.execute()

    def forget_node(self, node: str) -> None:
        self._redis.delete(names.node_key(node))

    def nodes(self) -> list[NodeStatus]:
        """The machines whose supervisor is alive."""
        known = sorted(name.decode() for name in self._redis.smembers(names.NODES))
        found = self._redis.mget([names.node_key(name) for name in known]) if known else []
        return [decode_record(NodeStatus, data) for data in found if data]


async def read_wants(redis: AsyncRedis) -> dict[str, Want]:
    """As ``Wants.all``, for asyncio."""
    return _ordered(await redis.hgetall(names.WANTS))


async def read_want(redis: AsyncRedis, model_id: str) -> Want | None:
    """What stands under ``model_id``, for asyncio."""
    data = await redis.hget(names.WANTS, names.slug_of(model_id))
    return decode_record(Want, data) if data else None


async def is_storage_marked(redis: AsyncRedis) -> bool:
    """False for a Redis that no supervisor has seen, or that has lost its data since."""
    return bool(await redis.exists(names.STORAGE_MARK))


def _ordered(fields: Mapping[bytes, bytes]) -> dict[str, Want]:
    found = {}
    for slug, data in fields.items():
        try:
            found[slug.decode()] = decode_record(Want, data)
        except (ContractError, UnicodeDecodeError) as error:
            # Of another version, or put there by hand: all others go on.
            log.warning("want is unreadable", extra={"slug": repr(slug), "error": str(error)})
    return dict(sorted(found.items(), key=lambda item: _id_order(item[1].model_id)))


def _id_order(model_id: str) -> tuple[int, int, str]:
    """Numbers by value, before all other ids."""
    is_number = model_id.isascii() and model_id.isdigit()
    return (0, int(model_id), "") if is_number else (1, 0, model_id)
