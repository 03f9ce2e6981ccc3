"""The record of an upload: a file that arrives in parts. Each has a folder of its own."""

from __future__ import annotations

import re
import secrets
import shutil
import time
from pathlib import Path
from typing import Literal

import msgspec

from jobs.files.folder import FilesFolder
from jobs.files.record import FileNotFoundInStoreError, new_file_id

VERSION = 1
KEPT_S = 3600
_ABANDONED_S = 86400
_ID = re.compile(r"upload_[0-9a-f]{32}")
_PART_ID = re.compile(r"part_[0-9a-f]{32}")

UploadStatus = Literal["pending", "completed", "cancelled"]


class UploadRecord(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An upload. Times are in epoch seconds, ``bytes`` is the size that it will have.

    ``file_id`` is the id that the file gets, so that a repeated completion makes no second one.
    ``keep_s``: how long the file will be kept, counted from its creation.
    """

    id: str
    bytes: int
    created_at: float
    expires_at: float
    filename: str
    purpose: str
    file_id: str
    owner: str = ""
    keep_s: int | None = None
    status: UploadStatus = "pending"
    v: int = VERSION

    def shown_status(self, now: float) -> str:
        """The status, or ``expired``."""
        return "expired" if self.status == "pending" and self.expires_at <= now else self.status


_decoder = msgspec.json.Decoder(UploadRecord)


def new_upload(
    *, num_bytes: int, filename: str, purpose: str, owner: str, keep_s: int | None
) -> UploadRecord:
    """A new record with an id of its own."""
    now = time.time()
    return UploadRecord(
        id=f"upload_{secrets.token_hex(16)}",
        bytes=num_bytes,
        created_at=now,
        expires_at=now + KEPT_S,
        filename=filename,
        purpose=purpose,
        file_id=new_file_id(),
        owner=owner,
        keep_s=keep_s,
    )


def is_upload_id(value: str) -> bool:
    """Whether it has the form of an upload's id."""
    return _ID.fullmatch(value) is not None


def is_part_id(value: str) -> bool:
    """Whether it has the form of a part's id."""
    return _PART_ID.fullmatch(value) is not None


def new_part_id() -> str:
    """The id of a new part; also its file's name."""
    return f"part_{secrets.token_hex(16)}"


def no_upload(upload_id: str) -> FileNotFoundInStoreError:
    """The error about an id without an upload."""
    return FileNotFoundInStoreError(f"there is no upload {upload_id[:80]!r}")


def record_of(folder: Path) -> UploadRecord | None:
    """The record in an upload's folder; ``None`` if it is missing or damaged."""
    try:
        record = _decoder.decode((folder / "upload.json").read_bytes())
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return record if record.v == VERSION else None


def remove_expired_uploads(folder: FilesFolder, now: float) -> int:
    """Remove the folders of uploads whose time is over. How many."""
    num_removed = 0
    for path in folder.upload_folders():
        record = record_of(path)
        if now > (_abandoned_at(path) if record is None else record.expires_at):
            shutil.rmtree(path, ignore_errors=True)
            num_removed += 1
    return num_removed


def _abandoned_at(path: Path) -> float:
    try:
        return path.stat().st_mtime + _ABANDONED_S
    except FileNotFoundError:
        return float("inf")
