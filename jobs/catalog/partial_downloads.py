"""Where downloads lie until they are whole: ``models/.pull/<repo>@<commit>/``, never listed.

The process that fills a folder holds a file lock in it, so that nobody else fills or removes it.
The lock ends with the process, however that ends.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from jobs.contract.errors import ModelConflictError, ModelNotFoundError
from jobs.platform.file_lock import lock_file

FOLDER = ".pull"
_LOCK = "lock"
_TRASH = "removed-"
_END_S = 2.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class PartialDownload:
    """An unfinished download. ``size_bytes`` is what it takes on disk."""

    name: str
    path: Path
    size_bytes: int


def partial_folder(models_dir: Path) -> Path:
    """The folder of all unfinished downloads."""
    return models_dir / FOLDER


def list_partial(models_dir: Path) -> list[PartialDownload]:
    """The unfinished downloads, sorted by name."""
    folder = partial_folder(models_dir)
    paths = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return [PartialDownload(path.name, path, folder_size(path)) for path in paths]


def folder_size(folder: Path) -> int:
    """Bytes of the folder's files."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # it is moved or removed at this moment
            total += path.stat(follow_symlinks=False).st_size if path.is_file() else 0
    return total


def remove_partial(models_dir: Path, name: str | None) -> int:
    """Remove the unfinished downloads of a repository or folder name; ``None``: all.

    Returns the bytes that became free. Raises ``ModelNotFoundError`` when there is none of that
    name, ``ModelConflictError`` when one is being downloaded.
    """
    found = [one for one in list_partial(models_dir) if name is None or _is_named(one.name, name)]
    if name is not None and not found:
        raise ModelNotFoundError(f"there is no unfinished download of {name[:120]!r}", "model")
    freed = 0
    for one in found:
        with locked(one.path, _END_S) as is_ours:
            if not is_ours:
                raise ModelConflictError(f"{one.name} is being downloaded: cancel its job first")
            shutil.rmtree(one.path)
            freed += one.size_bytes
    return freed


def _is_named(folder: str, name: str) -> bool:
    return name == folder or folder.startswith(f"{folder_prefix(name)}@")


def folder_prefix(repo: str) -> str:
    """The part of a folder's name before the commit, for ``publisher/model`` or ``model``."""
    return repo.replace("/", "--")


@contextmanager
def locked(folder: Path, wait_s: float = 0.0) -> Iterator[bool]:
    """Hold the folder's lock within the block; yields False when another process has it.

    ``wait_s`` is for a process that is just ending: its files are closed a little later.
    """
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield lock_file(descriptor, time.monotonic() + wait_s, _POLL_S)
    finally:
        os.close(descriptor)


def new_trash(models_dir: Path) -> Path:
    """A new hidden folder for what is about to be removed. A remainder is a partial download."""
    path = partial_folder(models_dir) / f"{_TRASH}{os.urandom(6).hex()}"
    path.mkdir(parents=True)
    return path
