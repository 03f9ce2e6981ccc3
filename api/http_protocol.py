"""uvicorn's connections, ended when a client takes too long to say what it wants.

uvicorn waits for ever for the first request's head, and for the rest of one that drips in. (A
body's time is ``BodyLimit``'s, the time between two requests uvicorn's own ``timeout_keep_alive``.)
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.errors import INVALID, Problem

HEAD_TIMEOUT_S = 10.0


class PatientProtocol(H11Protocol):
    """One connection. Its timer runs while no request is in work and the client has the word."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_working or self.transport.is_closing():
            self._stop_timer()
        elif self._timer is None:  # Not anew: each byte of a head would buy more time.
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """As uvicorn's, with our kind of body."""
        self._send(Problem(400, INVALID, "invalid_http", msg))

    @property
    def _is_working(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        """Say why if a request has begun; a connection that was only open is closed."""
        self._timer = None
        has_begun = self.conn.our_state is h11.IDLE and bool(self.conn.trailing_data[0])
        if has_begun:
            message = f"the head of the request did not arrive within {HEAD_TIMEOUT_S:g} s"
            self._send(Problem(408, INVALID, "head_timeout", message))
        else:
            self.transport.close()

    def _send(self, problem: Problem) -> None:
        body = problem.body()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        for event in (
            h11.Response(status_code=problem.status, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
