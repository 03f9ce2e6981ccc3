"""What the product asks the operating system, and how it asks programs of it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

_ANSWER_S = 5.0

Ask = Callable[[Sequence[str]], str | None]
"""Runs a program; its output without white space around it, ``None`` when it does not answer."""


class Awake(Protocol):
    """The machine does not fall asleep by itself until ``release``, or until the holder ends."""

    def release(self) -> None: ...


class Platform(Protocol):
    """Facts of the system. Methods never raise for a fact that the system does not tell."""

    def physical_cores(self) -> int:
        """Cores for computing: no hyperthreads, no efficiency cores, none that we may not use."""
        ...

    def memory_bytes(self) -> int:
        """All memory of the machine."""
        ...

    def usable_memory_bytes(self) -> int:
        """The part of it that processes here may use: in a container, perhaps not all."""
        ...

    def may_have_gpu(self) -> bool:
        """False where certainly no GPU can compute."""
        ...

    def footprint_bytes(self, pid: int) -> int:
        """What the process costs in memory, 0 when it has ended. Cheap enough for each second."""
        ...

    def node_name(self) -> str:
        """The machine's name, for people. It does not change with the network."""
        ...

    def boot_id(self) -> str:
        """Id of the current boot. It differs on a cloned machine, which has booted separately."""
        ...

    def short_folder(self, digest: str) -> Path:
        """A folder of this user with a short path, the same in every process; it may be missing."""
        ...

    def keep_awake(self, pid: int) -> Awake | None:
        """Keep the machine awake while ``pid`` runs. ``None`` where that is not needed or fails."""
        ...

    def title_process(self, title: str) -> None:
        """Show ``title`` in ``ps``, where that has no side effects."""
        ...


def ask_program(command: Sequence[str]) -> str | None:
    """Run a program for at most 5 s. ``None`` when it is missing, fails or says nothing."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_ANSWER_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
