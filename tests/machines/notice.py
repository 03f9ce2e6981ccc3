"""When a process that is cut off gives up the connections that lead nowhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path

from tests.machines.machine import Machine

_LOOK_S = 0.05
_REDIS_PORT = 6379
_ESTABLISHED = "01"


class NoticeWatch(threading.Thread):
    """Looks when the last of the connections to Redis that there were at the start is gone."""

    def __init__(self, machine: Machine, parts: Iterable[str]) -> None:
        super().__init__(name="notice-watch", daemon=True)
        self._pids = {part: machine.places[part].pid for part in parts}
        self._first = {part: _connections(pid) for part, pid in self._pids.items()}
        self._gone_at: dict[str, float] = {}
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
            for part, pid in self._pids.items():
                if not self._first[part] & _connections(pid):
                    self._gone_at.setdefault(part, time.monotonic())

    def seconds(self, part: str, lost_at: float) -> float:
        """From ``lost_at`` until the last one was gone; endless when it was not."""
        return self._gone_at.get(part, float("inf")) - lost_at


def _connections(pid: int) -> set[str]:
    """Our ends of the open connections to Redis in the network of that process."""
    rows = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    fields = [row.split() for row in rows]
    return {
        local
        for _, local, remote, state, *_ in fields
        if state == _ESTABLISHED and int(remote.partition(":")[2], 16) == _REDIS_PORT
    }
