"""A Redis server that a test may kill, pause and restart."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from jobs.embedded_redis.binary import find_redis_binary
from tests.helpers.waiting import wait_until


class PrivateRedis:
    """One server on its own socket; with ``is_kept`` its data survives a kill."""

    def __init__(self, folder: Path, *, is_kept: bool = False, fsync: str = "always") -> None:
        self.socket = folder / "redis.sock"
        self._folder = folder
        self._is_kept = is_kept
        self._fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}?db=0"

    def start(self) -> None:
        """Return when it answers."""
        flags = f"--port 0 --unixsocket {self.socket} --dir {self._folder} --save ''".split()
        flags[-1] = ""
        keeping = ["--appendonly", "yes" if self._is_kept else "no", "--appendfsync", self._fsync]
        command = [str(find_redis_binary().path), *flags, *keeping]
        with (self._folder / "log").open("ab") as log:
            # Python ignores SIGXFSZ, and the server inherits that: a failing write is an error.
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, restore_signals=False
            )
        wait_until(self._answers, "the private Redis answers")

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        self.socket.unlink(missing_ok=True)

    def _answers(self) -> bool:
        try:
            with Redis.from_url(self.url, protocol=2) as client:
                return bool(client.ping())
        except RedisError:
            return False


@contextmanager
def private_redis(*, is_kept: bool = False, fsync: str = "always") -> Iterator[PrivateRedis]:
    """A running server; it and its data are removed at the end of the block."""
    # Not tmp_path: a unix socket's path is at most 104 bytes on macOS.
    folder = Path(tempfile.mkdtemp(prefix="mgs-own-", dir="/tmp"))
    server = PrivateRedis(folder, is_kept=is_kept, fsync=fsync)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
