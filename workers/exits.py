"""How a worker process ends, for its supervisor to read."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of ``python -m workers``."""

    STOPPED = 0  # told to by a signal
    CRASHED = 70  # an invariant of ours broke
    UNLOADED = 80  # an unload job was obeyed
    LOAD_FAILED = 81  # the reason is in the worker's last heartbeat
    ORPHANED = 82  # the supervisor is gone
    NOTHING_TO_LOAD = 83  # the job that should load the model is not there any more
