"""Linux, and with less to tell, any other system that is no Mac."""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from jobs.platform.base import Awake

# Reading the proportional set walks all pages: 37 ms per GB on a virtual machine. It is read again
# after this many times as long, so it takes at most 1 % of a core, and not sooner than this.
_REST_FACTOR = 100
_REST_S = 4.0
_GPU_DEVICES = ("nvidiactl", "kfd", "dxg")  # of NVIDIA, AMD, and Windows' Linux


@dataclass(frozen=True, slots=True)
class _Shared:
    """Resident bytes of a process that other processes pay for, and when to look again."""

    num_bytes: int
    until: float


class Linux:
    """Facts from /proc, /sys and psutil. ``root``: where these folders are."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._shared: dict[int, _Shared] = {}

    def physical_cores(self) -> int:
        """Those that this process may use; in a container, perhaps not all.

        Hyperthreads do not count, because a second one on a core slows matrix products down.
        """
        has_affinity = hasattr(psutil.Process, "cpu_affinity")
        usable = len(psutil.Process().cpu_affinity()) if has_affinity else 0
        physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
        return min(physical, usable or physical)

    def memory_bytes(self) -> int:
        return int(psutil.virtual_memory().total)

    def usable_memory_bytes(self) -> int:
        """The limit of the control group, or of one above it, if that is less than the memory."""
        return min([self.memory_bytes(), *self._group_limits()])

    def may_have_gpu(self) -> bool:
        devices = self._root / "dev"
        found = (devices / name for name in _GPU_DEVICES)
        return any(path.exists() for path in found) or any(devices.glob("dri/renderD*"))

    def footprint_bytes(self, pid: int) -> int:
        """The proportional set (PSS), in which a page of two processes counts half for each.

        What is shared is read now and then, the resident set each time.
        """
        try:
            process = psutil.Process(pid)
            resident = int(process.memory_info().rss)
            return max(0, resident - self._shared_bytes(process, resident))
        except psutil.Error:
            self._shared.pop(pid, None)
            return 0

    def node_name(self) -> str:
        return platform.node()

    def boot_id(self) -> str:
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return str(int(psutil.boot_time()))

    def short_folder(self, digest: str) -> Path:
        return Path(tempfile.gettempdir()) / f"mgs-{os.getuid()}-{digest}"

    def keep_awake(self, pid: int) -> Awake | None:
        return None

    def title_process(self, title: str) -> None:
        from setproctitle import setproctitle

        setproctitle(title)

    def _group_limits(self) -> Iterator[int]:
        """The limits of the control groups of this process, of both versions of the interface."""
        try:
            lines = (self._root / "proc/self/cgroup").read_text().splitlines()
        except OSError:
            return
        for line in lines:
            number, names, place = line.split(":", 2)
            if number == "0":
                yield from _limits_above(self._root / "sys/fs/cgroup", place, "memory.max")
            elif "memory" in names.split(","):
                folder = self._root / "sys/fs/cgroup/memory"
                yield from _limits_above(folder, place, "memory.limit_in_bytes")

    def _shared_bytes(self, process: psutil.Process, resident: int) -> int:
        known = self._shared.get(process.pid)
        started = time.monotonic()
        if known is None or started >= known.until:
            known = self._shared[process.pid] = _Shared(
                resident - _proportional(process, resident),
                started + max(_REST_S, _REST_FACTOR * (time.monotonic() - started)),
            )
        return known.num_bytes


def _proportional(process: psutil.Process, resident: int) -> int:
    """Proportional set, or the resident one where it cannot be read."""
    try:
        return int(process.memory_full_info().pss)
    except (AttributeError, OSError, psutil.AccessDenied):
        return resident


def _limits_above(top: Path, place: str, name: str) -> Iterator[int]:
    """The limits of a group and of those above it; in a container, the path may not exist."""
    group = top / place.lstrip("/")
    for folder in (group, *group.parents):
        with contextlib.suppress(OSError, ValueError):
            yield int((folder / name).read_text())
        if folder == top:
            return
