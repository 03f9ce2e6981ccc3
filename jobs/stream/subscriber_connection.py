"""A pub/sub connection without redis-py's overhead per message.

Every token of every stream arrives here, and redis-py wakes a task and makes forty calls for each
message. So redis-py only opens the connection (address, TLS, password, socket options). Then
hiredis parses the data in the socket's callback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast

import hiredis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from jobs.storage.connection import within

_OPEN_S = 5.0
_TICK_S = 0.5
# In ticks, not seconds: after this process was suspended, pending data is read before it counts.
_PING_AFTER = 4
_LOST_AFTER = 9

OnMessage = Callable[[list[Any]], None]
"""Gets what Redis sends: ``[b"message", channel, data]``, ``[b"subscribe", channel, n]``."""


class SubscriberConnection(asyncio.Protocol):
    """A subscription connection. Once lost, it stays lost.

    It only receives, so it would not notice a dead peer. After two seconds of silence it sends a
    PING. Without an answer, also from a frozen Redis, the connection counts as lost.
    """

    def __init__(self, connection: AbstractConnection, on_message: OnMessage) -> None:
        self._connection = connection
        self._on_message = on_message
        self._parser = hiredis.Reader()
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport = cast("asyncio.Transport", connection._writer.transport)
        self._transport.set_protocol(self)
        self._num_silent = 0  # ticks
        self._timer = self._call_later()

    @classmethod
    async def open(cls, pool: ConnectionPool, on_message: OnMessage) -> SubscriberConnection:
        """Connect with the pool's settings. Raises ``RedisError`` when that fails."""
        connection = pool.make_connection()
        try:
            await within(_OPEN_S, connection.connect())
        except RedisError:
            await connection.disconnect(nowait=True)
            raise
        return cls(connection, on_message)

    def subscribe(self, channels: Iterable[bytes]) -> None:
        """Subscribe. Redis confirms each channel. No effect on a lost connection."""
        self._send(b"SUBSCRIBE", *channels)

    def unsubscribe(self, channel: bytes) -> None:
        self._send(b"UNSUBSCRIBE", channel)

    async def wait_lost(self) -> None:
        """Wait until the connection is lost, then raise its ``RedisError``."""
        await asyncio.shield(self._end)

    async def close(self) -> None:
        self._timer.cancel()
        self._end.cancel()
        # Without waiting: redis-py's own protocol would not be told of the end.
        await self._connection.disconnect(nowait=True)

    def _send(self, *command: bytes) -> None:
        if not self._end.done():
            self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type]

    # Called by the event loop.

    def _tick(self) -> None:
        self._num_silent += 1
        if self._num_silent == _PING_AFTER:
            self._send(b"PING")
        if self._num_silent >= _LOST_AFTER:
            self._lose(RedisTimeoutError("the subscription connection: Redis is silent"))
            return self._transport.abort()
        self._timer = self._call_later()

    def _call_later(self) -> asyncio.TimerHandle:
        return self._end.get_loop().call_later(_TICK_S, self._tick)

    def data_received(self, data: bytes) -> None:
        self._num_silent = 0
        try:
            self._parser.feed(data)
            while (message := self._parser.gets()) is not False:
                if isinstance(message, Exception):
                    raise RedisError(str(message))
                # The answer to PING is a list only while there is a subscription.
                if isinstance(message, list) and message[0] != b"pong":
                    self._on_message(message)
        except (RedisError, hiredis.ProtocolError) as error:
            self._lose(RedisError(f"the subscription connection: {error}"))
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(RedisConnectionError(f"the subscription connection is lost: {exc or 'closed'}"))

    def _lose(self, error: RedisError) -> None:
        self._timer.cancel()
        if not self._end.done():
            self._end.set_exception(error)
            self._end.exception()  # so that asyncio does not log it
