"""The connection on which Redis rings.

Every token of every stream comes through it, so what redis-py does for each message (a task is
woken, forty calls) is left out: redis-py opens the connection, with its address, TLS and password,
and from then on hiredis parses in the callback of the socket what comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast

import hiredis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

OnMessage = Callable[[list[Any]], None]
"""Called with what Redis sends: ``[b"message", channel, data]``, ``[b"subscribe", channel, n]``."""


class Bells(asyncio.Protocol):
    """A subscription connection that, once lost, stays lost."""

    def __init__(self, connection: AbstractConnection, on_message: OnMessage) -> None:
        self._connection = connection
        self._on_message = on_message
        self._parser = hiredis.Reader()
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport = cast("asyncio.Transport", connection._writer.transport)
        self._transport.set_protocol(self)

    @classmethod
    async def open(cls, pool: ConnectionPool, on_message: OnMessage) -> Bells:
        """Connect, in the way of the pool's connections; ``RedisError`` when that fails."""
        connection = pool.make_connection()
        await connection.connect()
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
        self._end.cancel()
        # Not for its end, of which redis-py's own protocol is no longer told.
        await self._connection.disconnect(nowait=True)

    def _send(self, *command: bytes) -> None:
        if not self._end.done():
            self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type]

    # Called by the event loop.

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
            while (message := self._parser.gets()) is not False:
                if isinstance(message, Exception):
                    raise RedisError(str(message))
                self._on_message(message)
        except (RedisError, hiredis.ProtocolError) as error:
            self._lose(RedisError(f"the subscription connection: {error}"))
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(RedisConnectionError(f"the subscription connection is lost: {exc or 'closed'}"))

    def _lose(self, error: RedisError) -> None:
        if not self._end.done():
            self._end.set_exception(error)
            self._end.exception()  # told to who asks; nobody need
