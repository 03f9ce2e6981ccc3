"""``python -m api``: serve until a signal."""

from __future__ import annotations

import errno
import math
import os
import signal
import socket
import sys
from types import FrameType
from typing import Any

import uvicorn

from api.app import create_app
from api.cli.banner import banner
from api.web.peers import watch_peer
from api.web.protocol import PatientProtocol
from jobs.logs import set_up_logging
from jobs.platform.file_limit import raise_file_limit
from jobs.settings import Settings, load_server_settings

_BACKLOG = 2048
_MAX_FILES = 10240  # what macOS allows
_ANSWER_S = 1.0


class Server(uvicorn.Server):
    """uvicorn, which prints the banner once it listens."""

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(banner(self._settings), flush=True)


def main() -> int:
    """Exit status: 0 after a graceful stop, 1 if it cannot listen, 2 for a wrong setting."""
    settings = load_server_settings()
    set_up_logging(settings.log_level)
    try:
        listener = listen(settings.host, settings.port)
    except OSError as error:
        print(f"mgs: {_why(error, settings)}", file=sys.stderr)
        return 1
    raise_file_limit(_MAX_FILES)  # Each client is an open file.
    server = Server(uvicorn_config(settings), settings)
    _exit_with_zero(server)
    server.run([listener])
    return 0


def _exit_with_zero(server: uvicorn.Server) -> None:
    """Ignore the signal that uvicorn raises again after its stop: the exit status is to be 0."""

    def note(number: int, frame: FrameType | None) -> None:
        if not server.should_exit:  # before uvicorn has installed its own handlers
            raise SystemExit(0)

    signal.signal(signal.SIGINT, note)
    signal.signal(signal.SIGTERM, note)


def uvicorn_config(settings: Settings) -> uvicorn.Config:
    """uvicorn's settings: few log lines, no ``Server`` header, a stop within the grace period."""
    return uvicorn.Config(
        create_app(settings),
        http=PatientProtocol,
        log_level="warning" if settings.log_level == "info" else settings.log_level,
        log_config=None,
        access_log=settings.log_level == "debug",
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.grace_s),
        timeout_keep_alive=30,
        ws="none",
        lifespan="on",
    )


def listen(host: str, port: int) -> socket.socket:
    """A bound socket whose connections notice vanished peers; ``OSError`` when it cannot be.

    A name with several addresses, such as ``localhost``, is its first one of IPv4.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    if port and is_answered(family, address):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        watch_peer(listener)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def is_answered(family: int, address: Any) -> bool:
    """Whether somebody listens there. BSD lets us bind beside a server on all addresses."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(_ANSWER_S)
        try:
            probe.connect(address)
            # A socket can be its own peer when the system chose this very port for it.
            return bool(probe.getsockname() != probe.getpeername())
        except OSError:
            return False


def _why(error: OSError, settings: Settings) -> str:
    address = f"{settings.host}:{settings.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{address} is in use by another program: stop it, or set MGS_PORT"
    return f"cannot listen on {address} (MGS_HOST, MGS_PORT): {error.strerror or error}"


if __name__ == "__main__":
    sys.exit(main())
