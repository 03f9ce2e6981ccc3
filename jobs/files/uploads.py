"""Uploads: files that arrive in parts and are joined in the end."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from jobs.contract.errors import InvalidRequestError
from jobs.files.folder import disk_errors, sync_folder, write_whole
from jobs.files.partial import PartialFile
from jobs.files.record import FileNotFoundInStoreError, FileRecord
from jobs.files.store import FileStore
from jobs.files.upload_records import (
    UploadRecord,
    UploadStatus,
    is_part_id,
    is_upload_id,
    new_part_id,
    no_upload,
    record_of,
)

MAX_PART_BYTES = 64 * 1024 * 1024
MAX_PARTS = 10_000
_READ_BYTES = 1024 * 1024


class UploadStore:
    """Uploads of a store of files. Synchronous: call it in a thread."""

    def __init__(self, files: FileStore) -> None:
        self._files = files

    def create(self, record: UploadRecord) -> None:
        """Begin an upload. Raises ``FilesFullError``."""
        self._files.check_room(record.bytes)
        self._files.folder.make()
        folder = self._folder(record.id)
        with disk_errors():
            folder.mkdir(mode=0o700)
        self._write(record)

    def record(self, upload_id: str) -> UploadRecord:
        """Raises ``FileNotFoundInStoreError``."""
        found = record_of(self._folder(upload_id)) if is_upload_id(upload_id) else None
        if found is None:
            raise no_upload(upload_id)
        return found

    def add_part(self, upload_id: str, partial: PartialFile) -> str:
        """Add what was written as a part; its id. Raises ``InvalidRequestError``."""
        partial.sync()
        with self._locked(upload_id) as record:
            _check_open(record)
            sizes = self._sizes(upload_id)
            total = sum(sizes.values()) + partial.num_bytes
            if total > record.bytes:
                raise InvalidRequestError(
                    f"data: the parts have {total} bytes together, more than the upload's "
                    f"{record.bytes}",
                    "data",
                )
            if not partial.num_bytes or len(sizes) >= MAX_PARTS:
                message = f"data: a part is not empty, and an upload has {MAX_PARTS} at most"
                raise InvalidRequestError(message, "data")
            part_id = new_part_id()
            folder = self._folder(upload_id)
            with disk_errors():
                os.replace(partial.path, folder / part_id)
            sync_folder(folder)
            return part_id

    def complete(
        self, upload_id: str, part_ids: Sequence[str], md5: str | None
    ) -> tuple[UploadRecord, FileRecord]:
        """Join the parts in this order; a repetition finds the file. ``InvalidRequestError``."""
        with self._locked(upload_id) as record:
            if (found := self._made(record)) is None:
                _check_open(record)
                found = self._join(record, self._checked(record, part_ids), md5)
            return self._end(record, "completed"), found

    def cancel(self, upload_id: str) -> UploadRecord:
        """Give the upload up and remove its parts. Raises ``InvalidRequestError``."""
        with self._locked(upload_id) as record:
            if self._made(record) is not None:
                raise InvalidRequestError("the upload is completed: delete its file instead")
            if record.status == "cancelled":
                return record
            return self._end(record, "cancelled")

    def _made(self, record: UploadRecord) -> FileRecord | None:
        """The file of a completed upload; also if its completion was cut off after that."""
        try:
            return self._files.record(record.file_id)
        except FileNotFoundInStoreError:
            return None

    def _checked(self, record: UploadRecord, part_ids: Sequence[str]) -> list[Path]:
        sizes = self._sizes(record.id)
        seen: set[str] = set()
        for index, part_id in enumerate(part_ids):
            if part_id not in sizes or part_id in seen:
                place = f"part_ids[{index}]"
                reason = "is given twice" if part_id in seen else "is no part of the upload"
                raise InvalidRequestError(f"{place}: {part_id[:80]!r} {reason}", place)
            seen.add(part_id)
        total = sum(sizes[part_id] for part_id in part_ids)
        if total != record.bytes:
            message = f"part_ids: these parts have {total} bytes, the upload {record.bytes}"
            raise InvalidRequestError(message, "part_ids")
        return [self._folder(record.id) / part_id for part_id in part_ids]

    def _join(self, record: UploadRecord, parts: list[Path], md5: str | None) -> FileRecord:
        digest = hashlib.md5(usedforsecurity=False)
        with contextlib.closing(self._files.new_partial(record.bytes)) as whole:
            for part in parts:
                with part.open("rb") as stream:
                    while data := stream.read(_READ_BYTES):
                        digest.update(data)
                        whole.write(data)
            if md5 is not None and digest.hexdigest() != md5.strip().lower():
                message = f"md5: the content's is {digest.hexdigest()}"
                raise InvalidRequestError(message, "md5")
            expires_at = None if record.keep_s is None else time.time() + record.keep_s
            return self._files.add(
                whole, record.filename, record.purpose, record.owner, expires_at, record.file_id
            )

    def _end(self, record: UploadRecord, status: UploadStatus) -> UploadRecord:
        """The record stays until it expires, so that the same request gets the same answer."""
        ended = msgspec.structs.replace(record, status=status)
        self._write(ended)
        for part_id in self._sizes(record.id):
            (self._folder(record.id) / part_id).unlink(missing_ok=True)
        return ended

    def _sizes(self, upload_id: str) -> dict[str, int]:
        with os.scandir(self._folder(upload_id)) as entries:
            return {one.name: one.stat().st_size for one in entries if is_part_id(one.name)}

    def _write(self, record: UploadRecord) -> None:
        write_whole(self._folder(record.id) / "upload.json", msgspec.json.encode(record))

    def _folder(self, upload_id: str) -> Path:
        return self._files.folder.uploads / upload_id

    @contextlib.contextmanager
    def _locked(self, upload_id: str) -> Iterator[UploadRecord]:
        """One request at a time changes an upload, in whichever process."""
        self.record(upload_id)
        try:
            descriptor = os.open(self._folder(upload_id), os.O_RDONLY)
        except FileNotFoundError:
            raise no_upload(upload_id) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield self.record(upload_id)
        finally:
            os.close(descriptor)


def _check_open(record: UploadRecord) -> None:
    status = record.shown_status(time.time())
    if status != "pending":
        raise InvalidRequestError(f"the upload is {status}")
