"""The final files of a batch: in the order of the input, complete, stored once."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from jobs.batches.folder import BatchFolder
from jobs.batches.journal import Journal
from jobs.batches.records import BatchRecord
from jobs.files.folder import write_whole
from jobs.files.record import BATCH_OUTPUT
from jobs.files.store import FileStore

OUTPUT_TTL_S = 30 * 86400
_BUFFER_BYTES = 1 << 20


def store_outputs(
    files: FileStore, folder: BatchFolder, record: BatchRecord, journal: Journal, now: int
) -> tuple[str | None, str | None]:
    """Write the final files. Gives the ids of output and error file, ``None`` for an empty one.

    Raises ``OSError`` or ``DiskFullError``; it can be called again.
    """
    write_whole(folder.failed_lines, msgspec.json.encode(journal.failed_lines()))
    if record.kind == "anthropic":
        _write_lines(folder.results, journal.all_answers())
        return None, None
    counts = journal.counts
    expires_at = float(now + (record.output_ttl_s or OUTPUT_TTL_S))
    stored: list[str | None] = []
    for what, file_id, num in (
        ("output", record.planned_output_id, counts.completed),
        ("error", record.planned_error_id, counts.failed),
    ):
        if num == 0:
            stored.append(None)
            continue
        path = folder.path / f"{what}.final"
        _write_lines(path, journal.answers(succeeded=what == "output"))
        name = f"{record.id}_{what}.jsonl"
        files.add_from_path(path, name, BATCH_OUTPUT, record.caller, expires_at, file_id)
        stored.append(file_id)
    return stored[0], stored[1]


def _write_lines(path: Path, lines: Iterable[bytes]) -> None:
    new = path.with_name(f"{path.name}.new")
    with new.open("wb", _BUFFER_BYTES) as file:
        for line in lines:
            file.write(line)
            file.write(b"\n")
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
