"""The input file of a retry: the lines of a batch that did not succeed, as they were."""

from __future__ import annotations

import time

import msgspec

from jobs.batches.errors import BatchStateError
from jobs.batches.folder import BatchFolder
from jobs.batches.input_file import InputFile
from jobs.batches.records import BatchRecord
from jobs.files.record import BATCH
from jobs.files.store import FileStore

_KEPT_S = 30 * 86400
_FULL_BYTES = 1 << 20


def retry_input(files: FileStore, folder: BatchFolder, record: BatchRecord) -> str:
    """Store the file; its id. Raises ``BatchStateError`` if the batch has no failed lines yet."""
    lines = _failed_lines(folder, record)
    source = InputFile(folder.input)
    partial = files.new_partial(folder.input.stat().st_size)
    try:
        data = bytearray()
        for line in lines:
            data += source.raw(line) + b"\n"
            if len(data) > _FULL_BYTES:
                partial.write(bytes(data))
                data.clear()
        partial.write(bytes(data))
        name, expires_at = f"{record.id}_retry.jsonl", time.time() + _KEPT_S
        return files.add(partial, name, BATCH, record.caller, expires_at).id
    finally:
        partial.close()
        source.close()


def _failed_lines(folder: BatchFolder, record: BatchRecord) -> list[int]:
    if record.status.is_terminal and folder.failed_lines.exists():
        lines = msgspec.json.decode(folder.failed_lines.read_bytes(), type=list[int])
        if lines:
            return lines
    state = f"the batch is {record.status.value}"
    raise BatchStateError(f"{state}, with {record.counts.failed} failed lines: nothing to retry")
