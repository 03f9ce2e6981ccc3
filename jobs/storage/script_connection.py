"""A connection of its own for a script that is called for every token.

A client of redis-py takes a connection from its pool, checks, times and counts each command, and
waits for its reply. Here the reply of a call is read when somebody asks for it, or before the next
call is sent.
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
    """Calls one Lua script, which must bear being run twice. From any thread."""

    def __init__(self, redis: SyncRedis, script: str) -> None:
        self._script = redis.register_script(script)
        self._pool = redis.connection_pool
        self._lock = threading.Lock()
        self._connection: AbstractConnection | None = None
        self._last: PendingReply | None = None

    def __call__(self, keys: Sequence[Word], args: Sequence[Word]) -> Any:
        """The script's reply."""
        return self.send(keys, args).wait()

    def send(self, keys: Sequence[Word], args: Sequence[Word]) -> PendingReply:
        """Send a call; an error is raised by who waits for the reply."""
        reply = PendingReply(self, keys, args)
        command = ("EVALSHA", self._script.sha, len(keys), *keys, *args)
        with self._lock:
            self._read_last()
            for _ in range(2):  # on a new connection if the one at hand was cut
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
            reply.value = _LostError()  # who asks once more has it sent again
        if isinstance(value, Exception):
            raise value
        return value

    def disconnect(self) -> None:
        """Drop the connection; the next call makes another."""
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
    """The reply of a call that was sent, or will be."""

    __slots__ = ("_connection", "args", "keys", "value")

    def __init__(
        self, connection: ScriptConnection, keys: Sequence[Word], args: Sequence[Word]
    ) -> None:
        self._connection = connection
        self.keys = keys
        self.args = args
        self.value: Any = None

    def wait(self) -> Any:
        """What the script replies; a call that was cut off is sent once more.

        ``RedisError`` when that fails or takes too long, or when it is the reply.
        """
        return self._connection.wait(self)


class _LostError(Exception):
    """The connection went before the reply came."""


def _is_demoted(error: RedisError) -> bool:
    """Whether Redis takes no writes any more: a new connection may lead to who does."""
    return isinstance(error, ReadOnlyError) or "-READONLY" in str(error)  # by a script of 6.2
