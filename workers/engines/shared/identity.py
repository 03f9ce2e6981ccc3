"""Identity of a model: KV states can be exchanged between processes with equal identities."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_FORMAT = 2  # version of the spill files


def digest_of(files: Iterable[Path], *facts: object) -> str:
    """Hex digest of the files' paths, sizes and modification times, and of ``facts``."""
    stats = [(str(path.resolve()), path.stat()) for path in sorted(files)]
    parts = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    text = repr([_FORMAT, parts, *facts])
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()
