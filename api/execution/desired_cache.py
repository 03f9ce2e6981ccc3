"""The wants as last read, for the moment in which they cannot have changed."""

from __future__ import annotations

import math
import time

from jobs.contract.records import Want
from jobs.storage.connection import AsyncRedis
from jobs.storage.desired_models import read_wants
from jobs.stream.hub import EventHub

_MAX_AGE_S = 1.0  # a ring can get lost


class WantCache:
    """Reads the wants when their bell has rung, or a second after the last time."""

    def __init__(self, redis: AsyncRedis, hub: EventHub) -> None:
        self._redis = redis
        self._hub = hub
        self._wants: dict[str, Want] = {}
        self._num_rings: int | None = None
        self._read_at = -math.inf

    async def read(self) -> dict[str, Want]:
        """All wants by slug, in the order of their model ids."""
        rings = self._hub.num_rings
        is_fresh = time.monotonic() - self._read_at < _MAX_AGE_S
        if not (self._wants and is_fresh and rings is not None and rings == self._num_rings):
            read_at = time.monotonic()
            self._wants = await read_wants(self._redis)
            self._num_rings, self._read_at = rings, read_at
        return self._wants
