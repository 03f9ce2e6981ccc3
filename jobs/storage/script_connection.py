"""A dedicated connection for a Lua script that is called for every token.

A redis-py client takes a connection from its pool for each command, does checks and statistics,
and waits for the reply. Here the reply is read when it is asked for or before the next call.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, cast

from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from jobs.storage.connection import SyncRedis

Word = str | bytes | int


class ScriptConnection:
    """Calls one Lua script, which must be idempotent. May be used from any thread."""

    def __init__(self, redis: SyncRedis, script: str) -> None:
        self._script = redis.register_script(script)
        self._pool = redis.connection_pool
        self._lock = threading.Lock()
        self._connection: AbstractConnection | None = None
        self._last: PendingReply | None = None

    def __call__(self, keys: Sequence[Word], args: Sequence[Word]) -> Any:
        """Call the script and wait for its reply."""
        return self.send(keys, args).wait()

    def send(self, keys: Sequence[Word], args: Sequence[Word]) -> PendingReply:
        """Send a call. Errors are raised by ``PendingReply.wait``."""
        reply = PendingReply(self, keys, args)
        command = ("EVALSHA", self._script.sha, len(keys), *keys, *args)
        with self._lock:
            self._read_last()
            for _ in range(2):  # the second time on a new connection
                try:
                    self._connected().send_command(*command)
                except RedisTimeoutError as error:
                    self.disconnect()
                    reply.value = error
                    break
                except RedisError as error:
                    self.disconnect()
                    reply.value = _LostError(str(error))
                else:
                    self._last, reply.value = reply, None
                    break
        return reply

    def wait(self, reply: PendingReply) -> Any:
        """See ``PendingReply.wait``."""
        with self._lock:
            if reply is self._last:
                self._read_last()
        value = reply.value
        if isinstance(value, _LostError | NoScriptError):
            return self._script(keys=reply.keys, args=reply.args)
        if isinstance(value, RedisTimeoutError):
            reply.value = _LostError()  # the next wait sends the call again
        if isinstance(value, Exception):
            raise value
        return value

    def disconnect(self) -> None:
        """Drop the connection. The next call opens another."""
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None

    def _read_last(self) -> None:
        if self._last is None:
            return
        reply, self._last = self._last, None
        try:
            reply.value = self._connected().read_response()
        except RedisTimeoutError as error:
            reply.value = error
            self.disconnect()
        except RedisConnectionError as error:
            reply.value = _LostError(str(error))
            self.disconnect()
        except RedisError as error:
            reply.value = error
            if _is_demoted(error):
                self.disconnect()

    def _connected(self) -> AbstractConnection:
        if self._connection is None:
            self._connection = cast(AbstractConnection, self._pool.make_connection())
            self._connection.connect()
        return self._connection


class PendingReply:
    """The reply to a call of ``ScriptConnection.send``."""

    __slots__ = ("_connection", "args", "keys", "value")

    def __init__(
        self, connection: ScriptConnection, keys: Sequence[Word], args: Sequence[Word]
    ) -> None:
        self._connection = connection
        self.keys = keys
        self.args = args
        self.value: Any = None

    def wait(self) -> Any:
        """Wait for the reply. A call that lost its connection is sent once more.

        Raises ``RedisError`` when that fails, when Redis does not answer in time, or when the reply
        is an error.
        """
        return self._connection.wait(self)


class _LostError(Exception):
    """The connection was lost before the reply arrived."""


def _is_demoted(error: RedisError) -> bool:
    """Whether Redis became a replica. A new connection may lead to the new primary."""
    return isinstance(error, ReadOnlyError) or "-READONLY" in str(error)  # a script of 6.2
