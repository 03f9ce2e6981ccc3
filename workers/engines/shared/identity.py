"""What must be equal for the KV state of one process to be good for another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_FORMAT = 2  # of the spilled files


def digest_of(files: Iterable[Path], *facts: object) -> str:
    """A hash of the files' paths, sizes and times of change, and of all else that counts."""
    stats = [(str(path.resolve()), path.stat()) for path in sorted(files)]
    parts = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    text = repr([_FORMAT, parts, *facts])
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()
