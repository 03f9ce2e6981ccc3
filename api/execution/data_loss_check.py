"""Whether Redis has lost its data and no supervisor has put back yet what it knows."""

from __future__ import annotations

from jobs.contract.errors import StorageLostError
from jobs.storage.connection import AsyncRedis
from jobs.storage.desired_models import is_storage_marked


class DataLossCheck:
    """Asks only where something is missing; a Redis never marked has lost nothing."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis
        self._has_seen_mark = False

    async def check(self, *, is_missing: bool) -> None:
        """``StorageLostError`` when what ``is_missing`` was lost with all other data."""
        if self._has_seen_mark and not is_missing:
            return
        is_marked = await is_storage_marked(self._redis)
        if self._has_seen_mark and not is_marked:
            raise StorageLostError("Redis has lost its data: the models will be back in a moment")
        self._has_seen_mark = is_marked
