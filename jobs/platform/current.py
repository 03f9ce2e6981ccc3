"""The platform that this process runs on."""

from __future__ import annotations

import functools
import sys

from jobs.platform.base import Platform
from jobs.platform.darwin import Darwin
from jobs.platform.linux import Linux


@functools.cache
def current_platform() -> Platform:
    """Chosen once per process."""
    return Darwin() if sys.platform == "darwin" else Linux()
