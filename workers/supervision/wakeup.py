"""Listens for the wake-up message after changes of the desired models."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from redis.exceptions import RedisError

from jobs.storage import names
from jobs.storage.connection import connect

_POLL_S = 10.0
_RETRY_S = 1.0


class WakeupListener(threading.Thread):
    """Calls ``on_wakeup`` for each message, and once per connection for missed ones."""

    def __init__(self, redis_url: str, on_wakeup: Callable[[], None]) -> None:
        super().__init__(name="wakeup", daemon=True)
        self._redis_url = redis_url
        self._on_wakeup = on_wakeup

    def run(self) -> None:
        """Listen until the process ends."""
        while True:
            try:
                self._listen()
            except RedisError:
                time.sleep(_RETRY_S)

    def _listen(self) -> None:
        with connect(self._redis_url).pubsub() as pubsub:
            pubsub.subscribe(names.WAKEUP)
            while True:
                if pubsub.get_message(timeout=_POLL_S) is not None:
                    self._on_wakeup()
