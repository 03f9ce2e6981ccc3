"""What was unloaded lately, so that an unload can be repeated and is answered like the first."""

from __future__ import annotations

from jobs.contract.errors import ContractError
from jobs.contract.records import DesiredModel, decode_record, encode_record
from jobs.storage import names
from jobs.storage.connection import AsyncRedis


async def note_unload(redis: AsyncRedis, slug: str, desired: DesiredModel, ttl_s: int) -> None:
    """To be called before the desired model is removed: who finds none must find this."""
    await redis.set(names.unloaded_key(slug), encode_record(desired), ex=ttl_s)


async def last_unloaded(redis: AsyncRedis, slug: str) -> DesiredModel | None:
    """The desired model that was removed last; ``None`` after its time, or when it cannot be read."""
    data = await redis.get(names.unloaded_key(slug))
    try:
        return decode_record(DesiredModel, data) if data else None
    except ContractError:
        return None
