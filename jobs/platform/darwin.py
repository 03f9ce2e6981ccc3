"""macOS. Each fact comes from a program or a call that needs no rights."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from jobs.platform.base import Ask, Awake, ask_program

_MINIMUM_VERSION = 14  # of macOS, for MLX's wheels
_CAFFEINATE = "/usr/bin/caffeinate"
_LIBRARY = "/usr/lib/libSystem.B.dylib"
_RUSAGE_INFO_V4 = 4

log = logging.getLogger(__name__)


class _RusageInfo(ctypes.Structure):
    """``struct rusage_info_v4`` of <sys/resource.h>, 296 bytes."""

    _fields_ = (
        ("uuid", ctypes.c_uint8 * 16),
        ("times_wakeups_pageins_wired_resident", ctypes.c_uint64 * 7),
        ("phys_footprint", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 27),
    )


Rusage = Callable[[int, int, Any], int]
"""``proc_pid_rusage(pid, flavor, buffer)`` of libSystem; 0 when it has filled the buffer."""


class Darwin:
    """Facts of a Mac, from ``sysctl``, ``scutil``, ``launchctl`` and libSystem."""

    def __init__(self, ask: Ask = ask_program, rusage: Rusage | None = None) -> None:
        self._ask = ask
        self._rusage = rusage or _system_rusage()

    def physical_cores(self) -> int:
        """The performance cores: a step waits for its slowest thread."""
        performance = self._number("hw.perflevel0.physicalcpu")
        return performance or psutil.cpu_count(logical=False) or os.cpu_count() or 1

    def memory_bytes(self) -> int:
        return self._number("hw.memsize") or int(psutil.virtual_memory().total)

    def usable_memory_bytes(self) -> int:
        return self.memory_bytes()

    def may_have_gpu(self) -> bool:
        return True

    def device_memory_bytes(self) -> int:
        """About what the GPU may use: the limit that somebody has set, or 75 % of the memory."""
        limit_mb = self._number("iogpu.wired_limit_mb")
        return limit_mb * 2**20 if limit_mb else self.memory_bytes() * 3 // 4

    def footprint_bytes(self, pid: int) -> int:
        """What Activity Monitor shows and what the system counts when memory is short.

        The resident set lacks the GPU's memory and has the clean pages of files.
        """
        info = _RusageInfo()
        if self._rusage(pid, _RUSAGE_INFO_V4, ctypes.byref(info)) != 0:
            return 0
        return int(info.phys_footprint)

    def node_name(self) -> str:
        """The name of the sharing settings: that of the host may come from the network."""
        return self._local_host_name

    def boot_id(self) -> str:
        return self._sysctl("kern.bootsessionuuid") or str(int(psutil.boot_time()))

    def short_folder(self, digest: str) -> Path:
        """Not TMPDIR: launchd's is another one than the shell's, and it is cleaned each night."""
        return Path.home() / "Library" / "Caches" / "mgs" / digest

    def keep_awake(self, pid: int) -> Awake | None:
        """The display may sleep: a busy one makes the GPU's watchdog end more work."""
        try:
            return _Caffeinate(pid)
        except OSError as error:
            log.warning("the machine may fall asleep", extra={"error": str(error)})
            return None

    def title_process(self, title: str) -> None:
        """Nothing: setproctitle makes the process an application, which App Nap may slow down."""

    def translation_problem(self) -> str | None:
        """Why this Python cannot serve on this processor, ``None`` if it can."""
        machine = platform.machine()
        if machine == "arm64":
            return None
        if self._number("sysctl.proc_translated"):
            return f"{machine} under Rosetta: MLX needs an arm64 Python"
        return f"{machine}: MLX needs Apple silicon"

    def version_problem(self) -> str | None:
        """Why this version of macOS cannot serve, ``None`` if it can."""
        version = self.version()
        major = version.partition(".")[0]
        is_old = major.isdecimal() and int(major) < _MINIMUM_VERSION
        return f"{version}: MLX needs {_MINIMUM_VERSION} or newer" if is_old else None

    def version(self) -> str:
        """The version of macOS, such as ``15.1``."""
        return self._ask(["/usr/bin/sw_vers", "-productVersion"]) or platform.mac_ver()[0]

    def throttling_problem(self, job: str | None) -> str | None:
        """Why launchd slows down what ``job`` runs, ``None`` if it does not.

        ``job`` is XPC_SERVICE_NAME: ``0`` or an application's name outside a service.
        """
        if not job or job == "0" or job.startswith("application."):
            return None
        kind = self.spawn_type(job)
        if kind in (None, "interactive"):
            return None
        return (
            f"launchd runs {job} as {kind}, which macOS throttles: give it the ProcessType "
            "Interactive, as `mgs service install` does"
        )

    def spawn_type(self, job: str) -> str | None:
        """How launchd treats a job: ``interactive``, ``background``, ``daemon`` and others."""
        domains = (f"gui/{os.getuid()}", f"user/{os.getuid()}", "system")
        for domain in domains:
            said = self._ask(["/bin/launchctl", "print", f"{domain}/{job}"]) or ""
            for line in said.splitlines():
                name, _, value = line.strip().partition(" = ")
                if name == "spawn type":
                    return value.partition(" ")[0]
        return None

    @functools.cached_property
    def _local_host_name(self) -> str:
        return self._ask(["/usr/sbin/scutil", "--get", "LocalHostName"]) or platform.node()

    def _number(self, name: str) -> int:
        """A number of sysctl, 0 when there is none of that name."""
        said = self._sysctl(name) or ""
        return int(said) if said.isdecimal() else 0

    def _sysctl(self, name: str) -> str | None:
        return self._ask(["/usr/sbin/sysctl", "-n", name])


class _Caffeinate:
    """``caffeinate``, which ends with the process ``pid`` even if that is killed."""

    def __init__(self, pid: int) -> None:
        self._process = subprocess.Popen(
            [_CAFFEINATE, "-i", "-w", str(pid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def release(self) -> None:
        self._process.terminate()
        self._process.wait()


def _system_rusage() -> Rusage:
    function = ctypes.CDLL(_LIBRARY).proc_pid_rusage
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
    function.restype = ctypes.c_int
    return function
