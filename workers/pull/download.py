"""Fetches one file, continues where an earlier try ended, and verifies its content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path

from jobs.contract.errors import FileCorruptError, HubUnreachableError
from workers.pull.hub import Hub, RemoteFile
from workers.pull.patience import PassingError, Patience

_BLOCK_BYTES = 1 << 20
SUFFIX = ".part"


class _UnusableError(Exception):
    """What was fetched of the file cannot be continued."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Digest:
    """The digest of a file's bytes, in the form that the hub announces."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        # Git's form: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
        self._hash = hashlib.sha256() if file.is_large else hashlib.sha1(usedforsecurity=False)
        if not file.is_large:
            self._hash.update(b"blob %d\0" % file.size)
        self.num_bytes = 0

    def feed(self, data: bytes) -> None:
        self._hash.update(data)
        self.num_bytes += len(data)

    def read(self, path: Path) -> None:
        """Feed the content of a file on disk."""
        with path.open("rb", buffering=0) as source:
            while block := source.read(_BLOCK_BYTES):
                self.feed(block)

    @property
    def is_right(self) -> bool:
        is_whole = self.num_bytes == self._file.size
        return is_whole and self._hash.hexdigest() == self._file.digest


def has_content(path: Path, file: RemoteFile) -> bool:
    """Whether ``path`` is a file with the announced content."""
    try:
        if not path.is_file() or path.stat().st_size != file.size:
            return False
        digest = Digest(file)
        digest.read(path)
    except OSError:
        return False
    return digest.is_right


class Downloader:
    """Fetches files of one commit. ``on_bytes(n)`` is told of bytes that are on disk now, also of
    those of an earlier try; a negative number takes them back. What it raises ends the download.
    """

    def __init__(
        self, hub: Hub, commit: str, patience: Patience, on_bytes: Callable[[int], None]
    ) -> None:
        self._hub = hub
        self._commit = commit
        self._patience = patience
        self._on_bytes = on_bytes

    def fetch(self, file: RemoteFile, path: Path) -> None:
        """Make ``path`` the whole, verified file. Its parts are in ``<path>.part`` until then.

        A file that cannot be continued, or is wrong, is begun anew once. Raises a ``PullError``, or
        ``OSError`` of the disk.
        """
        part = path.with_name(path.name + SUFFIX)
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._fill(file, part)
        except _UnusableError as first:
            self._discard(part)
            try:
                self._fill(file, part)
            except _UnusableError as second:
                self._discard(part)
                raise FileCorruptError(f"{file.path}: {first.why}, then {second.why}") from None
        part.replace(path)

    def _discard(self, part: Path) -> None:
        self._on_bytes(-part.stat().st_size)
        part.unlink()

    def _fill(self, file: RemoteFile, part: Path) -> None:
        """Append what is missing, and check the whole."""
        digest = Digest(file)
        # Without a buffer: what has been received stays when the process is killed.
        with part.open("ab", buffering=0) as target:
            digest.read(part)
            self._on_bytes(digest.num_bytes)
            while digest.num_bytes < file.size:
                before = digest.num_bytes
                try:
                    self._append(file, target, digest)
                    failure = PassingError(HubUnreachableError("the hub ends files too early"))
                except PassingError as error:
                    failure = error
                if digest.num_bytes > before:
                    self._patience.note_progress()
                if digest.num_bytes < file.size:
                    self._patience.wait(failure)
            os.fsync(target.fileno())
        if not digest.is_right:
            raise _UnusableError("its content is not what the hub has announced")

    def _append(self, file: RemoteFile, target: FileIO, digest: Digest) -> None:
        with self._hub.open(self._commit, file, digest.num_bytes) as (start, blocks):
            if start != digest.num_bytes:
                raise _UnusableError("the hub does not continue a file")
            for block in blocks:
                _write(target, block)
                digest.feed(block)
                self._on_bytes(len(block))
                if digest.num_bytes > file.size:
                    raise _UnusableError("it is longer than the hub has announced")


def _write(target: FileIO, block: bytes) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[target.write(rest) :]
