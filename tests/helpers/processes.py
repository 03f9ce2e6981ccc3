"""Facts about processes and ports of this machine."""

from __future__ import annotations

import socket

import psutil


def is_running(pid: int) -> bool:
    """True for a live process, False for a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def free_port() -> int:
    """A TCP port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
