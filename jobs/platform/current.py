"""The platform that this process runs on."""

from __future__ import annotations

import functools
import os
import sys

from jobs.platform.base import Platform
from jobs.platform.darwin import Darwin
from jobs.platform.linux import Linux


@functools.cache
def current_platform() -> Platform:
    """Chosen once per process."""
    return Darwin() if sys.platform == "darwin" else Linux()


def launchd_job() -> str | None:
    """Name of launchd's job that this process belongs to; set on macOS only."""
    return os.environ.get("XPC_SERVICE_NAME")  # noqa: TID251 - launchd's, not a setting
