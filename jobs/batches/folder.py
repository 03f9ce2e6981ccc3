"""The folder of one batch on disk: its record, its input, the lines that have ended.

``batch.json`` is the record, ``input.jsonl`` a hard link to the input file, ``out.jsonl`` and
``err.jsonl`` are the journals (``jobs/batches/journal.py``), ``lock`` is locked by the process that
works on the batch, and ``cancel`` exists once the batch is to be cancelled.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from jobs.batches.records import BatchRecord, decode_batch, encode_batch
from jobs.contract.errors import ContractError
from jobs.files.folder import sync_folder, write_whole

_ABANDONED_S = 3600.0


class BatchFolder:
    """``path`` is the folder; its name is the batch's id."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def input(self) -> Path:
        return self.path / "input.jsonl"

    @property
    def out_journal(self) -> Path:
        return self.path / "out.jsonl"

    @property
    def err_journal(self) -> Path:
        return self.path / "err.jsonl"

    @property
    def failed_lines(self) -> Path:
        """The numbers of the lines that did not succeed, for a retry."""
        return self.path / "failed.json"

    @property
    def results(self) -> Path:
        """The results of a batch of Anthropic's kind."""
        return self.path / "results.jsonl"

    @property
    def exists(self) -> bool:
        return self.path.is_dir()

    @property
    def is_cancelled(self) -> bool:
        """Whether a cancel was requested; it outlives a loss of Redis' data."""
        return (self.path / "cancel").exists()

    def is_abandoned(self, now: float) -> bool:
        """Whether its creation has failed a while ago: there is no record."""
        try:
            return not (self.path / "batch.json").exists() and (
                self.path.stat().st_mtime + _ABANDONED_S < now
            )
        except OSError:
            return False

    def note_cancel(self) -> None:
        (self.path / "cancel").touch()
        sync_folder(self.path)

    def make(self) -> None:
        """Make the folder. The record comes last (``write``): without it, there is no batch."""
        self.path.mkdir(mode=0o700, parents=True)
        sync_folder(self.path.parent)

    def write(self, record: BatchRecord) -> None:
        """Replace the record: whole, or not at all."""
        write_whole(self.path / "batch.json", encode_batch(record))

    def read(self) -> BatchRecord:
        """Raises ``ContractError`` when the record is missing or unreadable."""
        try:
            return decode_batch((self.path / "batch.json").read_bytes())
        except OSError as error:
            raise ContractError(f"the record of {self.path.name} cannot be read: {error}") from None

    def lock(self) -> int | None:
        """The descriptor of the locked file; ``None`` while another process works on the batch."""
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def drop_journals(self) -> None:
        """Remove what only a running batch needs."""
        for path in (self.out_journal, self.err_journal):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove all; the record first, so that a half removed folder is no batch."""
        (self.path / "batch.json").unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)


def folders_in(root: Path) -> Iterator[BatchFolder]:
    """The folders of all batches under ``root``."""
    if root.is_dir():
        yield from (BatchFolder(path) for path in sorted(root.iterdir()) if path.is_dir())
