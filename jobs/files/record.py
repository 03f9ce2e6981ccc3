"""The record of a file, its id, and the errors of the store of files."""

from __future__ import annotations

import re
import secrets
import time

import msgspec

from jobs.contract.errors import ContractError, JobError

VERSION = 1
BATCH = "batch"
BATCH_OUTPUT = "batch_output"

_ID = re.compile(r"file-[0-9a-f]{32}")
_TIME_CHARS = 12  # 48 bits of milliseconds, as in a UUID of version 7
_PREFIX_CHARS = len("file-")


class FileNotFoundInStoreError(JobError):
    """There is no file of that id, or it belongs to another caller, or it has expired."""

    code = "file_not_found"


class FileElsewhereError(JobError):
    """The file lies on another machine, which is named."""

    code = "file_elsewhere"


class FileTooLargeError(JobError):
    """A file or a part of an upload is larger than allowed."""

    code = "file_too_large"


class FilesFullError(JobError):
    """All files together would be larger, or more, than allowed."""

    code = "files_full"


class FileRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file of the store. Times are in epoch seconds, ``bytes`` is its size.

    ``owner`` is the caller id of who stored it. Without ``expires_at`` it is kept until it is
    deleted.
    """

    id: str
    bytes: int
    created_at: float
    filename: str
    purpose: str
    sha256: str
    owner: str = ""
    expires_at: float | None = None
    v: int = VERSION

    @property
    def etag(self) -> str:
        """As the header has it: quoted."""
        return f'"{self.sha256[:32]}"'

    def is_expired(self, now: float) -> bool:
        return self.expires_at is not None and self.expires_at <= now


_decoder = msgspec.json.Decoder(FileRecord)


def encode_record(record: FileRecord) -> bytes:
    """The record as JSON."""
    return msgspec.json.encode(record)


def decode_record(data: bytes) -> FileRecord:
    """Decode a record. Raises ``ContractError`` for anything else, also for another version."""
    try:
        record = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"the record of the file cannot be read: {error}") from error
    if record.v != VERSION or not is_file_id(record.id):
        raise ContractError(f"record of version {record.v} with the id {record.id[:40]!r}")
    return record


def new_file_id() -> str:
    """A new id. Ids in alphabetical order are in order of creation.

    So a listing continues after an id whose file was deleted meanwhile.
    """
    milliseconds = int(time.time() * 1000)
    return f"file-{milliseconds:0{_TIME_CHARS}x}{secrets.token_hex(10)}"


def is_file_id(value: str) -> bool:
    """Whether it has the form of an id. Anything else never becomes a path."""
    return _ID.fullmatch(value) is not None


def time_of(file_id: str) -> float:
    """When the id was made, in epoch seconds."""
    return int(file_id[_PREFIX_CHARS : _PREFIX_CHARS + _TIME_CHARS], 16) / 1000


def no_file(file_id: str) -> FileNotFoundInStoreError:
    """The error about an id without a file."""
    return FileNotFoundInStoreError(f"there is no file {file_id[:80]!r}")
