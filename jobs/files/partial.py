"""A file while it is being written. Nothing lists it, and it vanishes with its writer."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import threading
from pathlib import Path

from jobs.files.folder import disk_errors
from jobs.files.record import FileTooLargeError

_READ_BYTES = 1024 * 1024


class PartialFile:
    """Takes bytes up to ``max_bytes``; synchronous: write in a thread.

    The lock tells other processes that somebody still writes. A killed writer holds none.
    """

    def __init__(self, path: Path, descriptor: int, max_bytes: int, *, is_ours: bool) -> None:
        self.path = path
        self._is_ours = is_ours
        self.num_bytes = 0
        self._descriptor = descriptor
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()
        self._lock = threading.Lock()  # the writer may be a thread that nobody waits for any more

    @classmethod
    def create(cls, folder: Path, max_bytes: int) -> PartialFile:
        """A new one in the folder."""
        while True:
            path = folder / secrets.token_hex(16)
            with disk_errors():
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists():
                return cls(path, descriptor, max_bytes, is_ours=True)
            os.close(descriptor)  # removed as a leftover before it was locked

    @classmethod
    def open_finished(cls, path: Path) -> PartialFile:
        """One that somebody has written already. It stays unless it gets its name."""
        descriptor = os.open(path, os.O_RDONLY)
        found = cls(path, descriptor, 0, is_ours=False)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            while data := os.read(descriptor, _READ_BYTES):
                found.num_bytes += len(data)
                found._digest.update(data)
        except BaseException:
            found.close()
            raise
        return found

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Append. Raises ``FileTooLargeError``, ``DiskFullError``, and ``OSError`` when closed."""
        self.num_bytes += len(data)
        if self.num_bytes > self._max_bytes:
            raise FileTooLargeError(f"the file is larger than {self._max_bytes} bytes")
        self._digest.update(data)
        rest = memoryview(data)
        with self._lock, disk_errors():
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def sync(self) -> None:
        """Write what the system still holds to the disk."""
        with disk_errors():
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Remove it, unless it was given its name, and let go of the lock. Can be repeated."""
        with self._lock:
            if self._descriptor >= 0:
                if self._is_ours:
                    self.path.unlink(missing_ok=True)
                os.close(self._descriptor)
                self._descriptor = -1
