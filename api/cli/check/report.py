"""The report of a check: what an issue needs, without names, paths or texts."""

from __future__ import annotations

import getpass
import importlib.metadata
import platform
import re
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from api.cli.doctor import Check
from api.cli.serve import project_root
from jobs.platform.base import ask_program
from jobs.platform.current import current_platform
from jobs.platform.darwin import Darwin

_PACKAGES = ("mlx-gguf-server", "mlx", "mlx-lm", "llama-cpp-python", "redis", "rq")


def write_report(checks: Iterable[Check], log: str) -> Path:
    """Write the checks, and the end of a server's ``log`` if there was a problem."""
    folder = project_root() / "build"
    folder.mkdir(exist_ok=True)
    path = folder / f"mgs-check-{time.strftime('%Y%m%d-%H%M%S')}.txt"
    lines = [*_machine(), ""]
    lines += [f"{check.verdict:<8} {check.subject}: {check.finding}" for check in checks]
    if log:
        lines += ["", "the server's last lines:", log]
    path.write_text(anonymous("\n".join(lines)) + "\n")
    return path


def anonymous(text: str) -> str:
    """``text`` without the folders, the user and the machine that it may name."""
    names = {
        str(project_root()): "PROJECT",
        str(Path.home()): "HOME",
        platform.node(): "MACHINE",
        current_platform().node_name(): "MACHINE",
        getpass.getuser(): "USER",
    }
    for name, word in names.items():
        # As a word: a short name may stand inside others.
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", word, text) if name else text
    return text


def _machine() -> list[str]:
    system = current_platform()
    is_mac = isinstance(system, Darwin)
    name = f"macOS {system.version()}" if isinstance(system, Darwin) else platform.system()
    said = ask_program(["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]) if is_mac else None
    memory = f"{system.memory_bytes() / 2**30:.0f} GiB"
    versions = [f"{one} {found}" for one in _PACKAGES if (found := _version(one))]
    return [
        f"{name} {platform.release()} {platform.machine()}, {said or platform.processor()}",
        f"{system.physical_cores()} cores that compute, {psutil.cpu_count()} in all, {memory}",
        f"Python {platform.python_version()}, {', '.join(versions)}",
    ]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
