"""Streams on plain ASGI: one send per event, keep-alives, a time-out for stuck clients.

A keep-alive of server-sent events is a comment line *without* a blank line: after an event with an
id, openai-python reads a blank line as an empty event (openai-python#2722).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial

from starlette.types import Send

from jobs import asyncio_tasks
from jobs.contract.errors import JobError, JobTimeoutError

PING = b":\n"
EVENT_STREAM = b"text/event-stream; charset=utf-8"
_PING_S = 10.0
_TICK_S = 5.0
_SEND_TIMEOUT_S = 30.0
BODY_SEND = "mgs.body_send"
"""Key in an ASGI scope: the server's own ``send``, to send body parts past the middleware."""


class SseWriter:
    """Writes one stream. Nothing is sent before ``open``, so that an early error can have a status.

    ``send`` sends the headers, ``body_send`` (default: ``send``) the body. ``ping`` returns the
    keep-alive that is sent while there are no events.
    """

    def __init__(
        self,
        send: Send,
        headers: Mapping[str, str],
        ping: Callable[[], bytes] = lambda: PING,
        body_send: Send | None = None,
        content_type: bytes = EVENT_STREAM,
    ) -> None:
        self.is_open = False
        self._ping = ping
        self._is_stuck = False
        self._send = send
        self._body_send = body_send or send
        self._headers = [
            (b"content-type", content_type),
            (b"cache-control", b"no-cache, no-store"),
            (b"x-accel-buffering", b"no"),
            *((name.lower().encode(), value.encode()) for name, value in headers.items()),
        ]
        self._last_sent = time.monotonic()
        self._stuck_since: float | None = None

    async def open(self) -> None:
        """Send status and headers, if they were not sent yet."""
        if not self.is_open:
            self.is_open = True
            await self._send(
                {"type": "http.response.start", "status": 200, "headers": self._headers}
            )

    async def close(self, data: bytes = b"") -> None:
        """Send the last part of the body."""
        await self.write(data, is_last=True)

    async def write(self, data: bytes, *, is_last: bool = False) -> None:
        """Send ``data``; blocks while the client does not read."""
        if self._is_stuck:
            return
        self._last_sent = self._stuck_since = time.monotonic()
        await self._body_send(
            {"type": "http.response.body", "body": data, "more_body": not is_last}
        )
        self._stuck_since = None

    @contextlib.asynccontextmanager
    async def kept_alive(self, give_up: Callable[[Exception], None]) -> AsyncIterator[None]:
        """Within the block: send headers after 10 s at the latest, and keep-alives every 10 s.

        ``give_up`` is called when a send has been stuck for 30 s.
        """
        tasks: list[asyncio.Task[None]] = []
        # A timer, not a task: most answers end before it fires.
        timer = asyncio.get_running_loop().call_later(
            _TICK_S, lambda: tasks.append(self._start_keep_alive(give_up))
        )
        try:
            yield
        finally:
            timer.cancel()
            for task in tasks:
                task.cancel()

    def _start_keep_alive(self, give_up: Callable[[Exception], None]) -> asyncio.Task[None]:
        return asyncio_tasks.start(
            partial(self._keep_alive, give_up),
            "keep-alive",
            lambda _: give_up(JobError("the stream could not be kept alive")),
        )

    async def _keep_alive(self, give_up: Callable[[Exception], None]) -> None:
        while True:
            now = time.monotonic()
            if self._stuck_since is not None:
                if now - self._stuck_since >= _SEND_TIMEOUT_S:
                    self._is_stuck = True  # another send would wait as well
                    give_up(JobTimeoutError("the client does not read"))
                    return
            elif now - self._last_sent >= _PING_S - 0.1:
                await self.open()
                await self.write(self._ping())
            await asyncio.sleep(_TICK_S)
