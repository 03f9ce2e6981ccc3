"""A connection of its own for a script that is called for every token.

redis-py takes a connection from a pool, looks whether it is well, times and counts the command:
sixty calls, each of which finds the processor's caches full of a model's weights. It makes the
connection, with the options of its socket; from then on there are the socket, hiredis, and answers
that may be asked for later.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Sequence
from typing import Any, cast

import hiredis
from redis.connection import AbstractConnection, BaseParser
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from jobs.storage.connection import SyncRedis

Word = str | bytes | int
_LOST = object()
# A socket whose waiting is the system's says "would block". Not to be tried again at once: that
# would take as long.
_TIMEOUTS = (TimeoutError, BlockingIOError, RedisTimeoutError)
_READ_BYTES = 65536


class ScriptLine:
    """Calls one Lua script, that may be sent twice. From any thread."""

    def __init__(self, redis: SyncRedis, script: str) -> None:
        self._script = redis.register_script(script)
        self._pool = redis.connection_pool
        self._lock = threading.Lock()
        self._connection: AbstractConnection | None = None
        self._reader = hiredis.Reader()
        self._last: Call | None = None

    def __call__(self, keys: Sequence[Word], args: Sequence[Word]) -> Any:
        """The script's answer."""
        return self.send(keys, args).answer()

    def send(self, keys: Sequence[Word], args: Sequence[Word]) -> Call:
        """Begin a call. One that could not be sent is made when its answer is asked for."""
        call = Call(self, keys, args)
        words = ("EVALSHA", self._script.sha, len(keys), *keys, *args)
        packed: bytes = hiredis.pack_command(words)
        with self._lock:
            self._read_last()
            for _ in range(2):  # on a new connection if the one at hand was cut
                try:
                    self._socket().sendall(packed)
                except (BlockingIOError, RedisTimeoutError) as error:
                    self._drop_connection()
                    call.reply = RedisTimeoutError(f"Redis does not take a script: {error}")
                    return call
                except (OSError, RedisError):
                    self._drop_connection()
                else:
                    self._last = call
                    return call
        call.reply = _LOST
        return call

    def answer(self, call: Call) -> Any:
        """See ``Call.answer``."""
        with self._lock:
            if call is self._last:
                self._read_last()
        reply = call.reply
        if reply is _LOST or isinstance(reply, NoScriptError):
            return self._script(keys=call.keys, args=call.args)
        if isinstance(reply, RedisTimeoutError):
            call.reply = _LOST  # who asks once more has it sent again
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _read_last(self) -> None:
        if self._last is None:
            return
        call, self._last = self._last, None
        try:
            call.reply = self._read()
        except _TIMEOUTS as error:
            call.reply = RedisTimeoutError(f"Redis does not answer a script: {error}")
            self._drop_connection()
        except (OSError, hiredis.ProtocolError):
            call.reply = _LOST
            self._drop_connection()
        if _is_demoted(call.reply):
            self._drop_connection()

    def _read(self) -> Any:
        while (reply := self._reader.gets()) is False:
            data = self._socket().recv(_READ_BYTES)
            if not data:
                raise OSError("Redis has closed the connection")
            self._reader.feed(data)
        return BaseParser.parse_error(str(reply)) if isinstance(reply, Exception) else reply

    def _socket(self) -> socket.socket:
        if self._connection is None:
            connection = cast(AbstractConnection, self._pool.make_connection())
            connection.connect()
            self._connection = connection
            self._reader = hiredis.Reader()
            _let_the_system_wait(cast(socket.socket, connection._sock))
        return cast(socket.socket, self._connection._sock)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None


class Call:
    """One that was sent, or will be."""

    __slots__ = ("_line", "args", "keys", "reply")

    def __init__(self, line: ScriptLine, keys: Sequence[Word], args: Sequence[Word]) -> None:
        self._line = line
        self.keys = keys
        self.args = args
        self.reply: Any = None

    def answer(self) -> Any:
        """What the script answers: waits for it, and sends it once more if it was cut off.

        ``RedisError`` when that fails or takes too long, or when it is the answer.
        """
        return self._line.answer(self)


def _is_demoted(reply: Any) -> bool:
    """Whether Redis takes no writes any more: a new connection may lead to who does."""
    is_said = isinstance(reply, RedisError) and "-READONLY" in str(reply)  # by a script of 6.2
    return is_said or isinstance(reply, ReadOnlyError)


def _let_the_system_wait(sock: socket.socket) -> None:
    """Python looks whether a socket with a time-out is ready before each use: two calls for one."""
    timeout_s = sock.gettimeout()
    if timeout_s is None or isinstance(sock, ssl.SSLSocket):
        return
    sock.settimeout(None)
    seconds = int(timeout_s)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        limit = struct.pack("ll", seconds, int((timeout_s - seconds) * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, option, limit)
