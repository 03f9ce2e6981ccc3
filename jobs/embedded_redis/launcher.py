"""``python -m jobs.embedded_redis.launcher`` keeps one Redis running on the state folder.

It stays the server's parent: a server that dies comes back on the same append-only file, signals
are forwarded, and what an earlier launcher left behind is stopped first. With ``REDIS_URL`` set
there is nothing to run, so it only waits for its end; one Procfile then serves both cases.
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
    """Run until told to stop; the exit status."""
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
    """Keeps one server alive: start, watch, start again, stop."""

    def __init__(self, settings: Settings, binary: RedisBinary, stop: StopSignal) -> None:
        self._settings = settings
        self._binary = binary
        self._stop = stop

    def run(self) -> None:
        """Until told to stop. A server that dies comes back; one that never came up is an error."""
        make_private(self._settings.socket_dir)
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
        """Relay its output until it ends; True when it died, False when told to stop."""
        watched: list[StopSignal | IO[bytes]] = [self._stop, server.output]
        is_up = False
        # A server that was forking for its append-only file leaves a child that holds the output
        # open, so the end of the output alone would be noticed too late.
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
    """Hold the state folder's lock; the system frees it however this process ends."""
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
    """A Redis URL fit to be printed."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def _say(text: str) -> None:
    print(f"redis: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
