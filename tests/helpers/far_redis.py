"""A Redis server on another host, which a test may freeze, and reach without the network."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis.exceptions import RedisError

from jobs.embedded_redis.binary import find_redis_binary
from jobs.storage.connection import SyncRedis, connect
from tests.helpers.netns import Host
from tests.helpers.waiting import wait_until

_PORT = 6379


class FarRedis:
    """``url``: for hosts on the network. ``near``: a client that does not use the network."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.url = f"redis://{host.address}:{_PORT}/0"
        self.near_url = f"unix://{folder / 'redis.sock'}?db=0"
        self.near: SyncRedis = connect(self.near_url)
        # No password: only the test's hosts can reach it.
        flags = f"--port {_PORT} --bind 0.0.0.0 --protected-mode no --unixsocketperm 700"
        files = ["--unixsocket", str(folder / "redis.sock"), "--dir", str(folder), "--save", ""]
        command = [str(find_redis_binary().path), *flags.split(), *files]
        with (folder / "log").open("wb") as log:
            self._process = host.start(command, stdout=log, stderr=log)
        wait_until(self._answers, "the far Redis answers")

    def freeze(self) -> None:
        """Stop it, as on a machine that swaps: connections and data are accepted, not answered."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End of ``freeze``."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self._process.kill()
        self._process.wait(10)

    def _answers(self) -> bool:
        try:
            return bool(self.near.ping())
        except RedisError:
            return False


@contextmanager
def far_redis(host: Host) -> Iterator[FarRedis]:
    """A server on ``host``; its data is deleted at the end of the block."""
    # Not tmp_path: a unix socket's path is at most 104 bytes on macOS.
    folder = Path(tempfile.mkdtemp(prefix="mgs-far-", dir="/tmp"))
    server = FarRedis(host, folder)
    try:
        yield server
    finally:
        server.near.close()
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
