"""``python -m api``: serve until a signal."""

from __future__ import annotations

import errno
import math
import resource
import signal
import socket
import sys
from types import FrameType

import uvicorn

from api.app import create_app
from api.cli.banner import banner
from api.web.protocol import PatientProtocol
from jobs.logs import set_up_logging
from jobs.settings import Settings, load_settings

_BACKLOG = 2048
_MAX_FILES = 10240  # what macOS allows
# A peer that is gone without a FIN is noticed after about a minute.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
_UNACKED_MS = 45_000


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
    settings = load_settings()
    set_up_logging(settings.log_level)
    try:
        listener = listen(settings.host, settings.port)
    except OSError as error:
        print(f"mgs: {_why(error, settings)}", file=sys.stderr)
        return 1
    _raise_file_limit()
    server = Server(uvicorn_config(settings), settings)
    _exit_with_zero(server)
    server.run([listener])
    return 0


def _raise_file_limit() -> None:
    """Each client needs a file descriptor; many systems limit them to 256 or 1024 by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(_MAX_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


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
    """A listening socket whose connections detect dead peers; ``OSError`` if it cannot be bound."""
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _watch_peers(listener)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _watch_peers(listener: socket.socket) -> None:
    """Set socket options that accepted connections inherit; each system has some of them."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKED_MS)


def _why(error: OSError, settings: Settings) -> str:
    address = f"{settings.host}:{settings.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{address} is in use by another program: stop it, or set MGS_PORT"
    return f"cannot listen on {address} (MGS_HOST, MGS_PORT): {error.strerror or error}"


if __name__ == "__main__":
    sys.exit(main())
