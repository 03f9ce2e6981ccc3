"""Whether Redis has lost its data, and no supervisor has restored the desired models yet."""

from __future__ import annotations

from jobs.contract.errors import StorageLostError
from jobs.storage.connection import AsyncRedis
from jobs.storage.desired_models import is_storage_marked


class DataLossCheck:
    """Reads the storage mark when a value is missing. Data without a mark cannot be lost."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis
        self._has_seen_mark = False

    async def check(self, *, is_missing: bool) -> None:
        """``StorageLostError`` when a value ``is_missing`` because Redis has lost its data."""
        if self._has_seen_mark and not is_missing:
            return
        is_marked = await is_storage_marked(self._redis)
        if self._has_seen_mark and not is_marked:
            raise StorageLostError("Redis has lost its data: the models are being restored")
        self._has_seen_mark = is_marked
