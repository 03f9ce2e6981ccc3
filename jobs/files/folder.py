"""The folder of the files: its layout, whole writes, and what a killed process left in it.

Below it: ``files/<id>`` with the record beside it in ``files/<id>.json``, ``partial/`` with what is
being written, ``uploads/`` and ``batches/``, and ``uid``, by which machines know the folder again.
A file exists when its record exists. The record is written last and removed first.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from jobs.contract.errors import DiskFullError

RECORD_SUFFIX = ".json"
_DRAFT_SUFFIX = ".draft"
_ROOMS = ("files", "partial", "uploads")
BLOCK_BYTES = 4096  # what a small file takes on disk
_DAMAGED_KEPT_S = 30 * 86400
_YOUNG_S = 60.0  # what is younger may be about to be completed
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class FilesFolder:
    """Paths below one folder. The folder is made by the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._uid = ""

    @property
    def files(self) -> Path:
        return self.root / "files"

    @property
    def partial(self) -> Path:
        return self.root / "partial"

    @property
    def uploads(self) -> Path:
        return self.root / "uploads"

    @property
    def batches(self) -> Path:
        return self.root / "batches"

    def uid(self) -> str:
        """The folder's own id. Whoever sees the same folder reads the same one."""
        if not self.known_uid():
            self.make()
            draft = self.root / f"uid.{secrets.token_hex(4)}{_DRAFT_SUFFIX}"
            try:
                write_whole(draft, secrets.token_hex(8).encode())
                with contextlib.suppress(FileExistsError):
                    os.link(draft, self._uid_path)  # of two processes at once the first decides
            finally:
                draft.unlink(missing_ok=True)
        return self.known_uid()

    def known_uid(self) -> str:
        """The same, or "" for a folder that holds nothing yet. Makes nothing."""
        if not self._uid:
            with contextlib.suppress(FileNotFoundError):
                self._uid = self._uid_path.read_text().strip()
        return self._uid

    @property
    def _uid_path(self) -> Path:
        return self.root / "uid"

    def make(self) -> None:
        """Make the folders, for the user only."""
        with disk_errors():
            for room in _ROOMS:
                (self.root / room).mkdir(mode=0o700, parents=True, exist_ok=True)

    def usage(self) -> tuple[int, int]:
        """Bytes and number of all files, with those that are being written and those of batches.

        One that lies in a batch's folder, too, counts once.
        """
        sizes: dict[tuple[int, int], int] = {}
        places = (self.files, self.partial, *self.upload_folders(), *_folders_in(self.batches))
        for state in (state for place in places for state in _states_in(place)):
            sizes[state.st_dev, state.st_ino] = max(state.st_size, BLOCK_BYTES)
        return sum(sizes.values()), len(sizes)

    def remove_leftovers(self) -> int:
        """Remove what killed processes left; what a living one writes is locked and stays."""
        partial = [path for path in _files_in(self.partial) if remove_if_unlocked(path)]
        orphans = [
            path
            for path in _files_in(self.files)
            if path.suffix == ""
            and _age_s(path) > _YOUNG_S
            and remove_if_unlocked(path, unless=record_path(path))
        ]
        drafts = [
            path
            for path in _files_in(self.files)
            if path.suffix == _DRAFT_SUFFIX and _remove_if_older(path, _YOUNG_S)
        ]
        return len(partial) + len(orphans) + len(drafts)

    def upload_folders(self) -> list[Path]:
        """The folders of all uploads."""
        return _folders_in(self.uploads)

    def record_paths(self) -> list[Path]:
        """The records of all files, in order of creation."""
        return [path for path in _files_in(self.files) if path.suffix == RECORD_SUFFIX]


def record_path(path: Path) -> Path:
    """Where the record of the file at ``path`` lies."""
    return path.with_name(path.name + RECORD_SUFFIX)


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file so that it has this content, or its former one, after any crash."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}{_DRAFT_SUFFIX}")
    try:
        with disk_errors():
            with open(draft, "xb", opener=_private) as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(draft, path)
            sync_folder(path.parent)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Within the block, a disk without room raises ``DiskFullError``."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise DiskFullError("the disk has no room for the file") from error
        raise


def remove_if_unlocked(path: Path, unless: Path | None = None) -> bool:
    """Remove a file that no living process writes, unless another one exists by then."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if unless is not None and unless.exists():
            return False
        path.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def is_long_damaged(path: Path) -> bool:
    """Whether a record that cannot be read has been kept long enough."""
    return _age_s(path) > _DAMAGED_KEPT_S


def _remove_if_older(path: Path, age_s: float) -> bool:
    if _age_s(path) <= age_s:
        return False
    path.unlink(missing_ok=True)
    return True


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _files_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            found = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return [folder / name for name in sorted(found)]


def _folders_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _states_in(folder: Path) -> Iterator[os.stat_result]:
    """Of the files in a folder, without records."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.endswith(RECORD_SUFFIX):
                with contextlib.suppress(FileNotFoundError):  # gone since
                    yield entry.stat(follow_symlinks=False)
