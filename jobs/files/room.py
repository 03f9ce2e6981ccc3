"""How much all files together take, and whether more are too many."""

from __future__ import annotations

import time

from jobs.files.folder import BLOCK_BYTES, FilesFolder

MAX_FILES = 100_000
_AGE_S = 1.0
_SHARE = 20  # measuring takes a twentieth of the time at most


class Room:
    """The files' total, measured anew about each second: other processes add to it, too."""

    def __init__(self, folder: FilesFolder, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._folder = folder
        self._num_bytes = 0
        self._num_files = 0
        self._until = float("-inf")

    def is_full(self, num_bytes: int) -> bool:
        """Whether that many bytes more are too many."""
        if time.monotonic() >= self._until:
            self.measure()
        return self._num_bytes + num_bytes > self.max_bytes or self._num_files >= MAX_FILES

    def measure(self) -> None:
        """Add the files up."""
        begun = time.monotonic()
        self._num_bytes, self._num_files = self._folder.usage()
        now = time.monotonic()
        self._until = now + max(_AGE_S, _SHARE * (now - begun))

    def note(self, num_bytes: int) -> None:
        """A file was added since."""
        self._num_bytes += max(num_bytes, BLOCK_BYTES)
        self._num_files += 1
