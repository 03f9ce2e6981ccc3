"""Clients that vanish without a word: noticed after about a minute, whether we send or wait."""

from __future__ import annotations

import socket
import sys
from typing import Protocol

IS_INHERITED = sys.platform != "darwin"
"""Whether connections have all options of their listener. macOS passes on neither the idle time nor
the drop time (XNU's ``tcp_input``)."""

_OPTIONS = {  # by number: Python does not name all of them on each system
    # TCP_KEEPIDLE, TCP_KEEPINTVL (s), TCP_KEEPCNT, TCP_USER_TIMEOUT (ms)
    "linux": {4: 30, 5: 10, 6: 3, 18: 45_000},
    # TCP_KEEPALIVE, TCP_KEEPINTVL (s), TCP_KEEPCNT, TCP_RXT_CONNDROPTIME (s)
    "darwin": {0x10: 30, 0x101: 10, 0x102: 3, 0x80: 45},
}


class Options(Protocol):
    """A socket, or what an event loop shows of one."""

    def setsockopt(self, level: int, name: int, value: int, /) -> None: ...


def watch_peer(connection: Options) -> None:
    """Have the system end the connection when its peer is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _OPTIONS.get(sys.platform, {}).items():
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
