"""Exit codes of worker processes, read by the supervisor."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of ``python -m workers``."""

    STOPPED = 0  # by a signal
    CRASHED = 70  # an internal error
    UNLOADED = 80  # by an unload job
    LOAD_FAILED = 81  # the worker's last heartbeat has the reason
    ORPHANED = 82  # the supervisor died
    NOTHING_TO_LOAD = 83  # the load job does not exist any more
    DEVICE_LOST = 84  # the GPU failed; see workers/engines/failures.py
