"""Clients that vanish without a word: noticed after about a minute, whether we send or wait."""

from __future__ import annotations

import socket
import sys
from typing import Protocol

from jobs.platform.tcp_keepalive import keepalive_options

IS_INHERITED = sys.platform != "darwin"
"""Whether connections have all options of their listener. macOS passes on neither the idle time nor
the drop time (XNU's ``tcp_input``)."""


class Options(Protocol):
    """A socket, or what an event loop shows of one."""

    def setsockopt(self, level: int, name: int, value: int, /) -> None: ...


def watch_peer(connection: Options) -> None:
    """Have the system end the connection when its peer is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = keepalive_options(idle_s=30, interval_s=10, count=3, unacknowledged_s=45)
    for option, value in options.items():
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
