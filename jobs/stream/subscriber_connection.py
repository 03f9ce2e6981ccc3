"""The connection on which Redis rings.

Every token of every stream comes through it, so what redis-py does for each message (a task is
woken, forty calls) is left out: redis-py opens the connection, with its address, TLS, password and
options of the socket, and from then on hiredis parses in the callback of the socket what comes.
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
# Of silence, in ticks and not by the clock: after a sleep of this process, what came is read first.
_PING_AFTER = 4
_LOST_AFTER = 9

OnMessage = Callable[[list[Any]], None]
"""Called with what Redis sends: ``[b"message", channel, data]``, ``[b"subscribe", channel, n]``."""


class SubscriberConnection(asyncio.Protocol):
    """A subscription connection that, once lost, stays lost.

    It only listens, so nothing that it sends would show that nobody is there. When Redis says
    nothing for two seconds it is asked, and must answer: also one that is frozen counts as lost.
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
        """Connect, in the way of the pool's connections; ``RedisError`` when that fails."""
        connection = pool.make_connection()
        try:
            await within(_OPEN_S, connection.connect())
        except RedisError:
            await connection.disconnect(nowait=True)
            raise
        return cls(connection, on_message)

    def subscribe(self, channels: Iterable[bytes]) -> None:
        """Ask for what is published there; Redis confirms each. Nothing once lost."""
        self._send(b"SUBSCRIBE", *channels)

    def unsubscribe(self, channel: bytes) -> None:
        self._send(b"UNSUBSCRIBE", channel)

    async def wait_lost(self) -> None:
        """Returns never; raises the ``RedisError`` with which the connection ended."""
        await asyncio.shield(self._end)

    async def close(self) -> None:
        self._timer.cancel()
        self._end.cancel()
        # Not for its end, of which redis-py's own protocol is no longer told.
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
            self._end.exception()  # told to who asks; nobody need
