"""A cache of the desired models, valid until a wake-up reports a change, for a second at most."""

from __future__ import annotations

import math
import time

from jobs.contract.records import DesiredModel
from jobs.storage.connection import AsyncRedis
from jobs.storage.desired_models import read_desired_models
from jobs.stream.hub import EventHub

_MAX_AGE_S = 1.0  # a wake-up message can get lost


class DesiredCache:
    """Reads the desired models again after a wake-up, or a second after the last read."""

    def __init__(self, redis: AsyncRedis, hub: EventHub) -> None:
        self._redis = redis
        self._hub = hub
        self._desired_models: dict[str, DesiredModel] = {}
        self._num_wakeups: int | None = None
        self._read_at = -math.inf

    async def read(self) -> dict[str, DesiredModel]:
        """All desired models by slug, in the order of their model ids."""
        wakeups = self._hub.num_wakeups
        is_fresh = time.monotonic() - self._read_at < _MAX_AGE_S
        if not (
            self._desired_models
            and is_fresh
            and wakeups is not None
            and wakeups == self._num_wakeups
        ):
            read_at = time.monotonic()
            self._desired_models = await read_desired_models(self._redis)
            self._num_wakeups, self._read_at = wakeups, read_at
        return self._desired_models
