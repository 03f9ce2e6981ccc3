"""A fingerprint of a model's files, which changes when one of them does."""

from __future__ import annotations

import hashlib
from pathlib import Path

from jobs.catalog.catalog import ModelEntry


def fingerprint(entry: ModelEntry) -> str:
    """Of names, sizes and times of the files, without reading them. "" for a model without any."""
    digest = hashlib.sha256()
    for file in sorted(_files_of(entry.path)):
        try:
            facts = file.stat()
        except OSError:
            continue
        digest.update(f"{file.name}\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]


def _files_of(path: Path) -> list[Path]:
    return list(path.iterdir()) if path.is_dir() else [path]
