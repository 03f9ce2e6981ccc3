"""A connection of its own for a script that is called for every token.

redis-py takes a connection from a pool, looks whether it is well, times and counts the command:
sixty calls, each of which finds the processor's caches full of a model's weights.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import hiredis
from redis.connection import ConnectionInterface
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError

from jobs.connection import SyncRedis

Word = str | bytes | int


class ScriptLine:
    """Calls one Lua script, that may be sent twice. One call at a time, from any thread."""

    def __init__(self, redis: SyncRedis, script: str) -> None:
        self._script = redis.register_script(script)
        self._pool = redis.connection_pool
        self._connection: ConnectionInterface | None = None
        self._lock = threading.Lock()

    def __call__(self, keys: Sequence[Word], args: Sequence[Word]) -> Any:
        """The script's answer. Its first call, and a lost connection, take redis-py's way."""
        words = ("EVALSHA", self._script.sha, len(keys), *keys, *args)
        packed: bytes = hiredis.pack_command(words)
        with self._lock:
            if self._connection is None:
                self._connection = self._pool.make_connection()
            try:
                self._connection.send_packed_command([packed], check_health=False)
                return self._connection.read_response()
            except (NoScriptError, RedisConnectionError):
                pass
        return self._script(keys=keys, args=args)
