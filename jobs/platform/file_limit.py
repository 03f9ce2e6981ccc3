"""The limit of open files. macOS starts processes with 256, many Linux systems with 1024."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit, setrlimit
from typing import Any


def raise_file_limit(wanted: int) -> None:
    """Allow ``wanted`` open files, or as many as the hard limit allows; never fewer than before."""
    soft, hard = getrlimit(RLIMIT_NOFILE)
    reachable = wanted if hard == RLIM_INFINITY else min(wanted, hard)
    if soft != RLIM_INFINITY and soft < reachable:
        setrlimit(RLIMIT_NOFILE, (reachable, hard))


@contextlib.contextmanager
def kept_file_limit() -> Iterator[None]:
    """For the import of a library that sets the limits, as mlx_lm does: to 2048 and 4096.

    That would lower the hard limit for good, or fail where it is lower already. Here it may only
    raise the soft one.
    """
    patched: Any = resource
    patched.setrlimit = lambda _which, limits: raise_file_limit(limits[0])
    try:
        yield
    finally:
        patched.setrlimit = setrlimit
