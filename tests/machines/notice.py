"""When a process that is cut off gives up the connections that lead nowhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from tests.machines.cluster import REDIS_PORT
from tests.machines.machine import Machine

_LOOK_S = 0.05
_ESTABLISHED = "01"


class NoticeWatch(threading.Thread):
    """Looks when the last of some connections is gone, part by part of one machine.

    ``ports``: by part, our ends of those connections.
    """

    def __init__(self, machine: Machine, ports: Mapping[str, Collection[int]]) -> None:
        super().__init__(name="notice-watch", daemon=True)
        self._places = {part: machine.places[part].pid for part in ports}
        self._first = {part: set(found) for part, found in ports.items()}
        self._gone_at: dict[str, float] = {}
        self._known = {part: _open_ports(pid) for part, pid in self._places.items()}
        self._one_gone_at: dict[str, float] = {}
        self._is_over = threading.Event()

    def __enter__(self) -> NoticeWatch:
        assert all(self._first.values()), self._first
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()

    def run(self) -> None:
        while not self._is_over.wait(_LOOK_S):
            for part, pid in self._places.items():
                ports = _open_ports(pid)
                if not self._first[part] & ports:
                    self._gone_at.setdefault(part, time.monotonic())
                if self._known[part] - ports:
                    self._one_gone_at.setdefault(part, time.monotonic())

    def seconds(self, part: str, lost_at: float) -> float:
        """From ``lost_at`` until the last one was gone, or until now."""
        return self._gone_at.get(part, time.monotonic()) - lost_at

    def seconds_to_first(self, part: str, lost_at: float) -> float:
        """From ``lost_at`` until any connection was gone, or until now."""
        return self._one_gone_at.get(part, time.monotonic()) - lost_at


def connections(machine: Machine, *parts: str) -> dict[str, set[int]]:
    """By part, our ends of all connections to Redis."""
    return {part: _open_ports(machine.places[part].pid, REDIS_PORT) for part in parts}


def _open_ports(pid: int, peer: int | None = None) -> set[int]:
    """Local ports of open connections in the network of that process, to port ``peer`` if any."""
    rows = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    ends = [(local, remote, state) for _, local, remote, state, *_ in map(str.split, rows)]
    return {
        _port(local)
        for local, remote, state in ends
        if state == _ESTABLISHED and peer in (None, _port(remote))
    }


def _port(end: str) -> int:
    return int(end.partition(":")[2], 16)
