"""One embedded Redis server process: configuration, start, stop, and leftover servers."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec
import psutil
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.retry import Retry

from jobs.embedded_redis.binary import RedisBinary
from jobs.embedded_redis.password import embedded_password
from jobs.settings import Settings

_POLL_S = 0.02
_LEFTOVER_WAIT_S = 5.0
# honcho kills all processes 5 s after its first signal. With the default grace of 3 s, Redis
# stops after at most 4.5 s.
_CLIENTS_EXTRA_WAIT_S = 0.5
_STOP_WAIT_S = 1.0
_SAME_START_S = 60.0
_MULTI_PART_AOF = (7, 0, 0)


class RedisProcessError(Exception):
    """The embedded Redis cannot run. The message is one line for the user."""


@dataclass(frozen=True)
class RedisProcess:
    """A running server, its output, a client for it, and the file with its pid."""

    process: subprocess.Popen[bytes]
    output: IO[bytes]
    client: Redis
    pid_file: Path

    @classmethod
    def start(cls, settings: Settings, binary: RedisBinary) -> RedisProcess:
        """Start a server and write its pid for a later launcher."""
        config_file = settings.state_dir / "redis.conf"
        _write_private(config_file, _config(settings).encode())
        # Own process group: honcho and the terminal signal their whole group, but Redis must stop
        # last, after the workers have returned their jobs. Own pipe: if the launcher is killed, a
        # server with honcho's pipe would hide its end from honcho.
        process = subprocess.Popen(
            [binary.path, config_file.resolve()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        assert process.stdout is not None
        with contextlib.suppress(psutil.NoSuchProcess):  # Already dead. Its output says why.
            _write_private(_pid_file(settings), msgspec.json.encode(_ProcessId.of(process.pid)))
        return cls(process, process.stdout, _client(settings), _pid_file(settings))

    @property
    def has_ended(self) -> bool:
        """True once the process is gone."""
        return self.process.poll() is not None

    @property
    def exit_reason(self) -> str:
        """How the process ended: ``signal 9`` or ``exit status 1``."""
        code = self.process.wait()
        return f"signal {-code}" if code < 0 else f"exit status {code}"

    def relay(self) -> bool:
        """Print the server's pending output. False once the server has closed it."""
        data = os.read(self.output.fileno(), 65536)
        with contextlib.suppress(OSError):  # Nobody reads our output: keep running.
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        return bool(data)

    def is_up(self) -> bool:
        """True when it answers, also while it loads its data: clients wait for that."""
        try:
            self.client.ping()
        except BusyLoadingError:
            return True
        except RedisError:
            return False
        return True

    def stop(self, grace_s: float) -> None:
        """Wait up to ``grace_s`` for other clients to disconnect, then stop the server."""
        deadline = time.monotonic() + grace_s + _CLIENTS_EXTRA_WAIT_S
        while self._has_other_clients() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        self.client.close()
        self.process.terminate()
        deadline = time.monotonic() + _STOP_WAIT_S
        while select.select([self.output], [], [], max(0.0, deadline - time.monotonic()))[0]:
            if not self.relay():
                break
        else:
            self.process.kill()
        self.process.wait()
        self.pid_file.unlink(missing_ok=True)

    def _has_other_clients(self) -> bool:
        try:
            return len(self.client.client_list()) > 1
        except RedisError:
            return False


class _ProcessId(msgspec.Struct, frozen=True):
    """Identity of a process. The start time tells it from another one with a reused pid.

    macOS' start times move with corrections of the clock; no pid is reused that soon.
    """

    pid: int
    start_time: float

    @classmethod
    def of(cls, pid: int) -> _ProcessId:
        return cls(pid, psutil.Process(pid).create_time())

    def process(self) -> psutil.Process | None:
        """The process, ``None`` if it has ended."""
        try:
            process = psutil.Process(self.pid)
            return process if abs(process.create_time() - self.start_time) < _SAME_START_S else None
        except psutil.NoSuchProcess:
            return None


def check_data_format(state_dir: Path, binary: RedisBinary) -> None:
    """Raise ``RedisProcessError`` for data that this server would silently ignore."""
    if (state_dir / "appendonlydir").exists() and binary.version < _MULTI_PART_AOF:
        raise RedisProcessError(
            f"the data in {state_dir.resolve()} was written by Redis 7 or newer, which "
            f"{binary.path} ({binary.version_text}) cannot read: install a newer one, "
            "or remove the data (rm -r appendonlydir in that folder)"
        )


def stop_leftover(settings: Settings) -> int | None:
    """Stop a server that a killed launcher left. Two servers would corrupt the append-only file.

    Returns its pid, or ``None`` without one. Raises ``RedisProcessError`` if it cannot be stopped.
    """
    leftover = _noted_leftover(settings) or _listening_leftover(settings)
    if leftover is None or _is_gone(leftover):
        return None
    for end in (leftover.terminate, leftover.kill):
        with contextlib.suppress(psutil.NoSuchProcess):
            end()
        if _is_gone(leftover, _LEFTOVER_WAIT_S):
            return leftover.pid
    raise RedisProcessError(f"process {leftover.pid} holds the data and cannot be stopped")


def _noted_leftover(settings: Settings) -> psutil.Process | None:
    try:
        noted = msgspec.json.decode(_pid_file(settings).read_bytes(), type=_ProcessId)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return noted.process()


def _listening_leftover(settings: Settings) -> psutil.Process | None:
    # The launcher was killed before it could write the pid. Only our server uses this socket.
    try:
        with _client(settings) as client:
            return psutil.Process(int(client.info("server")["process_id"]))
    except (RedisError, psutil.NoSuchProcess):
        return None


def _is_gone(process: psutil.Process, timeout_s: float = 0) -> bool:
    deadline = time.monotonic() + timeout_s
    while _is_alive(process):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _is_alive(process: psutil.Process) -> bool:
    # A zombie counts as gone: in a container there may be no parent that reaps it.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def make_private(folder: Path) -> None:
    """Make a folder that only its owner can enter: data and socket give access to prompts.

    Raises ``RedisProcessError`` when the folder cannot be used.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if {folder.lstat().st_uid, folder.stat().st_uid} != {os.getuid()}:
            raise RedisProcessError(f"{folder} belongs to another user: set MGS_STATE_DIR")
        folder.chmod(0o700)
    except OSError as error:
        raise RedisProcessError(f"the state folder cannot be used: {error}") from error


def check_sockets(folder: Path) -> None:
    """Raise ``RedisProcessError`` for a folder that cannot have a socket, as on an exFAT disk."""
    tried = folder / "try.sock"
    tried.unlink(missing_ok=True)
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(tried))
    except OSError as error:
        raise RedisProcessError(
            f"{folder} is on a file system without unix sockets, such as exFAT or a network share "
            f"({error.strerror}): set MGS_STATE_DIR to a folder of the system's disk"
        ) from error
    finally:
        tried.unlink(missing_ok=True)


def _write_private(path: Path, data: bytes) -> None:
    draft = path.with_suffix(".new")
    draft.touch(mode=0o600)
    draft.write_bytes(data)
    draft.replace(path)


def _config(settings: Settings) -> str:
    lines = [
        "# Written anew at each start.",
        f"unixsocket {_quoted(settings.redis_socket)}",
        "unixsocketperm 700",
        f"dir {_quoted(settings.state_dir.resolve())}",
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "maxmemory-policy noeviction",
        f"port {settings.redis_port or 0}",
    ]
    if settings.redis_port:
        lines += ["bind 127.0.0.1", f"requirepass {embedded_password(settings.state_dir)}"]
    return "\n".join(lines) + "\n"


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _client(settings: Settings) -> Redis:
    password = embedded_password(settings.state_dir) if settings.redis_port else None
    return Redis(
        unix_socket_path=str(settings.redis_socket),
        password=password,
        protocol=2,
        socket_timeout=1,
        retry=Retry(NoBackoff(), 0),
    )


def _pid_file(settings: Settings) -> Path:
    return settings.state_dir / "redis.pid"
