"""A TCP proxy before Redis that simulates network faults: delay, reset, refusal, packet loss.

One thread with an event loop. Replies are parsed and matched with their commands, so that a test
can act after Redis has executed a write and before its sender gets the reply. RESP 2 only, which
all clients of the product use.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.helpers.resp import Splitter, command_name

_CALL_S = 30.0
_PUSHING = frozenset({b"SUBSCRIBE", b"PSUBSCRIBE", b"MONITOR"})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A command with its reply; a transaction is one exchange, named EXEC."""

    name: bytes
    command: bytes
    """The command as sent; of a transaction, all its commands."""
    reply: bytes
    client_port: int


Watch = Callable[[Exchange], bool]
"""Called with each reply before it is forwarded; True drops it and its connection."""


class _Flow:
    """One direction of a connection: data is delayed, or held."""

    def __init__(self, proxy: TcpProxy, target: asyncio.Transport) -> None:
        self._proxy = proxy
        self._target = target
        self._waiting: deque[tuple[float, bytes]] = deque()

    def send(self, data: bytes) -> None:
        if not (self._waiting or self._proxy.is_held or self._proxy.delay_s):
            self._target.write(data)
            return
        self._waiting.append((time.monotonic() + self._proxy.delay_s, data))
        self._proxy.loop.call_later(self._proxy.delay_s, self.flush)

    def flush(self) -> None:
        """Write the data that is due; none while it is held."""
        now = time.monotonic() + 0.0005  # timers may fire early by the clock's grain
        while self._waiting and self._waiting[0][0] <= now and not self._proxy.is_held:
            self._target.write(self._waiting.popleft()[1])
        if self._waiting and not self._proxy.is_held:
            self._proxy.loop.call_later(max(0.0, self._waiting[0][0] - now), self.flush)


class _Link:
    """A client's connection, and the proxy's connection to the server."""

    def __init__(self, proxy: TcpProxy, client: asyncio.Transport) -> None:
        self._proxy = proxy
        self._client = client
        self._client_port = int(client.get_extra_info("peername")[1])
        self._server: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._commands, self._replies = Splitter(), Splitter()
        self._pending: deque[tuple[bytes, bytes]] = deque()
        self._transaction: list[bytes] = []
        self._is_pushing = False
        self.upward: _Flow | None = None
        self.downward = _Flow(proxy, client)

    def reach(self, server: asyncio.Transport) -> None:
        self._server = server
        self.upward = _Flow(self._proxy, server)
        for data in self._early:
            self.upward.send(data)
        self._early.clear()

    def from_client(self, data: bytes) -> None:
        if not self._is_pushing:
            for message in self._commands.feed(data):
                name = command_name(message)
                self._pending.append((name, message))
                self._is_pushing = self._is_pushing or name in _PUSHING
        if self.upward is None:
            self._early.append(data)
        else:
            self.upward.send(data)

    def from_server(self, data: bytes) -> None:
        if self._is_pushing:
            self.downward.send(data)
            return
        for reply in self._replies.feed(data):
            if self._is_lost(reply):
                self.cut()
                return
            self.downward.send(reply)

    def _is_lost(self, reply: bytes) -> bool:
        name, message = self._pending.popleft()
        if name == b"MULTI":
            self._transaction = [message]
            return False
        if self._transaction:
            self._transaction.append(message)
            if name not in (b"EXEC", b"DISCARD"):
                return False
            message, self._transaction = b"".join(self._transaction), []
        return self._proxy.judge(Exchange(name, message, reply, self._client_port))

    def cut(self) -> None:
        self._client.abort()
        if self._server is not None:
            self._server.abort()
        self._proxy.links.discard(self)


class _Side(asyncio.Protocol):
    """Receives the data of one end of a link."""

    def __init__(self, hear: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        self._hear = hear
        self._on_end = on_end

    def data_received(self, data: bytes) -> None:
        self._hear(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_end()


class _ClientProtocol(asyncio.Protocol):
    """The asyncio protocol of a client's connection."""

    def __init__(self, proxy: TcpProxy) -> None:
        self._proxy = proxy
        self._link: _Link | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if self._proxy.is_refusing:
            transport.abort()
            return
        self._link = _Link(self._proxy, transport)
        self._proxy.links.add(self._link)
        self._proxy.reach_server(self._link)

    def data_received(self, data: bytes) -> None:
        if self._link is not None:
            self._link.from_client(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._link is not None:
            self._link.cut()


class TcpProxy:
    """Listens on a loopback port. Thread-safe."""

    def __init__(self, upstream: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.links: set[_Link] = set()
        self.delay_s = 0.0
        self.is_held = False
        self.is_refusing = False
        self.port = 0
        self._listener: asyncio.Server | None = None
        self._upstream = upstream
        self._watch: Watch | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self._thread.start()

        async def listen() -> int:
            self._listener = await self.loop.create_server(
                lambda: _ClientProtocol(self), "127.0.0.1", 0
            )
            return int(self._listener.sockets[0].getsockname()[1])

        self.port = asyncio.run_coroutine_threadsafe(listen(), self.loop).result(_CALL_S)

    def stop(self) -> None:
        assert self._listener is not None
        self._call(self._listener.close)
        self.refuse()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_CALL_S)
        self.loop.close()

    # Faults.

    def delay(self, seconds: float) -> None:
        """Delay the data of each direction from now on."""
        self._call(lambda: setattr(self, "delay_s", seconds))

    def cut(self) -> int:
        """Reset every connection, accept new ones; returns their number."""
        return self._call(self._cut)

    def refuse(self) -> None:
        """Reset all connections, and each new one at once."""
        self._call(lambda: setattr(self, "is_refusing", True))
        self.cut()

    def accept(self) -> None:
        """End of ``refuse``."""
        self._call(lambda: setattr(self, "is_refusing", False))

    def hold_data(self) -> None:
        """Forward no data any more; all connections stay open."""
        self._call(lambda: setattr(self, "is_held", True))

    def release_data(self) -> None:
        """End of ``hold_data``: data sent meanwhile is forwarded now."""
        self._call(self._release_data)

    def watch(self, watch: Watch | None) -> None:
        """Call ``watch`` with each reply from now on, on the proxy's thread."""
        self._call(lambda: setattr(self, "_watch", watch))

    def lose_reply(self, number: int, is_counted: Callable[[Exchange], bool]) -> None:
        """Drop the reply of the ``number``-th (from 1) counted exchange from now on."""
        left = number

        def judge(exchange: Exchange) -> bool:
            nonlocal left
            left -= is_counted(exchange)
            return left == 0 and is_counted(exchange)

        self.watch(judge)

    # On the loop's thread.

    def judge(self, exchange: Exchange) -> bool:
        return self._watch is not None and self._watch(exchange)

    def reach_server(self, link: _Link) -> None:
        task = self.loop.create_task(self._reach(link))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _reach(self, link: _Link) -> None:
        try:
            transport, _ = await self.loop.create_unix_connection(
                lambda: _Side(link.from_server, link.cut), str(self._upstream)
            )
        except OSError:
            link.cut()
        else:
            link.reach(transport)

    def _cut(self) -> int:
        links = list(self.links)
        for link in links:
            link.cut()
        return len(links)

    def _release_data(self) -> None:
        self.is_held = False
        for link in self.links:
            link.downward.flush()
            if link.upward is not None:
                link.upward.flush()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def _call(self, action: Callable[[], T]) -> T:
        async def act() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(act(), self.loop).result(_CALL_S)


@contextmanager
def tcp_proxy(upstream: Path) -> Iterator[TcpProxy]:
    """A proxy to the unix socket of a Redis server, until the end of the block."""
    proxy = TcpProxy(upstream)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
