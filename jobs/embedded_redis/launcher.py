"""``python -m jobs.embedded_redis.launcher`` keeps one Redis running on the state folder.

It is the server's parent: it restarts a server that dies on the same append-only file, forwards
signals, and first stops a server that an earlier launcher left. With ``REDIS_URL`` set it only
waits for a stop signal, so one Procfile serves both cases.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from jobs.embedded_redis.binary import RedisBinary, RedisBinaryError, find_redis_binary
from jobs.embedded_redis.process import (
    RedisProcess,
    RedisProcessError,
    check_data_format,
    check_sockets,
    make_private,
    stop_leftover,
)
from jobs.settings import Settings, load_settings
from jobs.stop_signal import StopSignal

_LOCK_WAIT_S = 5.0
_START_POLL_S = 0.02
_WATCH_POLL_S = 1.0
_RESTART_DELAYS_S = (0.0, 0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
_STEADY_S = 10.0


def main() -> int:
    """Run until a stop signal. Returns the exit status."""
    settings = load_settings()
    stop = StopSignal()
    if settings.redis_url:
        _say(f"not started, REDIS_URL is set ({without_password(settings.redis_url)})")
        stop.wait()
        return 0
    try:
        binary = find_redis_binary()
        with _only_launcher(settings.state_dir):
            Launcher(settings, binary, stop).run()
    except (RedisBinaryError, RedisProcessError) as error:
        print(f"mgs redis: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


class Launcher:
    """Starts, watches, restarts and stops one server."""

    def __init__(self, settings: Settings, binary: RedisBinary, stop: StopSignal) -> None:
        self._settings = settings
        self._binary = binary
        self._stop = stop

    def run(self) -> None:
        """Run until a stop signal, and restart a server that dies.

        Raises ``RedisProcessError`` when the first server does not start.
        """
        make_private(self._settings.socket_dir)
        check_sockets(self._settings.socket_dir)
        check_data_format(self._settings.state_dir, self._binary)
        num_deaths = 0
        while not self._stop.wait(_RESTART_DELAYS_S[min(num_deaths, len(_RESTART_DELAYS_S) - 1)]):
            if leftover := stop_leftover(self._settings):
                _say(f"replaced the server (pid {leftover}) that an earlier launcher left behind")
            started = time.monotonic()
            server = RedisProcess.start(self._settings, self._binary)
            if not self._watch(server, is_first=num_deaths == 0):
                server.stop(self._settings.grace_s)
                break
            is_steady = time.monotonic() - started > _STEADY_S
            num_deaths = 1 if is_steady else num_deaths + 1
            _say(f"the server died ({server.exit_reason}); starting it again on the same data")

    def _watch(self, server: RedisProcess, *, is_first: bool) -> bool:
        """Relay the server's output. True when it died, False on a stop signal."""
        watched: list[StopSignal | IO[bytes]] = [self._stop, server.output]
        is_up = False
        # The end of the output alone would come too late: a child that rewrites the append-only
        # file keeps the output open.
        while not server.has_ended:
            ready = select.select(watched, [], [], _WATCH_POLL_S if is_up else _START_POLL_S)[0]
            if self._stop in ready:
                return False
            if server.output in ready and not server.relay():
                break
            if not is_up and server.is_up():
                is_up = True
                if is_first:
                    self._announce()
        if is_first and not is_up:
            raise RedisProcessError(f"{self._binary.path} does not start ({server.exit_reason})")
        return True

    def _announce(self) -> None:
        where = str(self._settings.redis_socket)
        if self._settings.redis_port:
            where += f" and 127.0.0.1:{self._settings.redis_port}"
        name = f"{self._binary.path} {self._binary.version_text}"
        _say(f"{name} on {where} (open it with: mgs redis-cli)")


@contextlib.contextmanager
def _only_launcher(state_dir: Path) -> Iterator[None]:
    """Hold the state folder's lock. The system frees it at the end of this process."""
    make_private(state_dir)
    deadline = time.monotonic() + _LOCK_WAIT_S
    with (state_dir / "redis.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RedisProcessError(
                        f"another server already runs on {state_dir.resolve()}: stop it, or give "
                        "this one its own MGS_STATE_DIR (and MGS_PORT)"
                    ) from None
                time.sleep(_START_POLL_S)
        yield


def without_password(url: str) -> str:
    """A Redis URL without its password, for output."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def _say(text: str) -> None:
    print(f"redis: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
