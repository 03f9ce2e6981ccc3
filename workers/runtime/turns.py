"""Lets the workers of one machine compute one after the other on the GPU that they share.

macOS may give a GPU to one process for so long that another one makes no step for a minute, and its
commands time out. While a worker holds the turn the others send no new commands, so its step ends.
No Mac has tried it yet.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from pathlib import Path
from typing import Self

from jobs.platform.file_lock import lock_file
from jobs.settings import Settings
from workers.engines.base import ModelInfo

_PATIENCE_S = 5.0  # a step that takes longer, or hangs, must not stop the others
_POLL_S = 0.0005


class Turn:
    """A context for one step. Between workers that wait it is fair; alone it costs 4 µs.

    Two locks on files: whoever waits for ``turn`` holds ``queue``, so that a worker which has just
    had its turn waits behind it. A process that ends lets go of both. After ``_PATIENCE_S`` the
    step begins without the turn.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._queue = os.open(folder / "gpu-queue.lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._turn = os.open(folder / "gpu-turn.lock", os.O_RDWR | os.O_CREAT, 0o600)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + _PATIENCE_S
        try:
            if lock_file(self._queue, deadline, _POLL_S):
                lock_file(self._turn, deadline, _POLL_S)
        finally:
            fcntl.flock(self._queue, fcntl.LOCK_UN)
        return self

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._turn, fcntl.LOCK_UN)


def open_turn(settings: Settings, info: ModelInfo) -> Turn | None:
    """The turn of the machine's workers, ``None`` if this model does without (``gpu_turns``)."""
    is_shared = info.is_on_gpu and sys.platform == "darwin"
    if settings.gpu_turns == "on" or (settings.gpu_turns == "auto" and is_shared):
        return Turn(settings.state_dir)
    return None
