"""A connection to Redis that is lost at a chosen command."""

from __future__ import annotations

from typing import Any

import pytest
from redis.connection import AbstractConnection as Connection
from redis.exceptions import ConnectionError as RedisConnectionError


class Cutter:
    """Cuts the connection once, at the n-th command from now on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._send = Connection.send_packed_command
        self._left: int | None = None
        self._is_carried_out = False
        monkeypatch.setattr(
            Connection,
            "send_packed_command",
            lambda *args, **kwargs: self._on_send(*args, **kwargs),
        )

    def cut_at(self, n: int | None, *, is_carried_out: bool = False) -> None:
        """``None``: at no command. ``is_carried_out``: the reply is lost instead of the command."""
        self._left, self._is_carried_out = n, is_carried_out

    def _on_send(self, connection: Connection, *args: Any, **kwargs: Any) -> None:
        is_last = self._left == 0
        if self._left is not None:
            self._left = None if is_last else self._left - 1
        if not is_last or self._is_carried_out:
            self._send(connection, *args, **kwargs)
        if is_last:
            if self._is_carried_out:
                connection.read_response()
            connection.disconnect()
            raise RedisConnectionError("the connection was cut")
