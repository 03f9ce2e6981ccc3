"""Moves and links of files, also where the file system cannot."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from jobs.files.folder import disk_errors

_NO_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK})


def move(source: Path, target: Path) -> None:
    """Rename, or copy to another file system."""
    with disk_errors():
        try:
            os.replace(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(source, target)
            source.unlink()


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under a second name, or a copy of it."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as stream:
        os.fsync(stream.fileno())
