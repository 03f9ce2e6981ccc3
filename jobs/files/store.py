"""The store of files: on disk, with an index in Redis."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from itertools import islice
from pathlib import Path

from redis.exceptions import RedisError

from jobs.files.folder import (
    FilesFolder,
    disk_errors,
    is_long_damaged,
    record_path,
    sync_folder,
    write_whole,
)
from jobs.files.index import FileIndex, IndexedFile, read_record
from jobs.files.moving import link_or_copy, move
from jobs.files.partial import PartialFile
from jobs.files.record import (
    FileElsewhereError,
    FileRecord,
    FilesFullError,
    encode_record,
    is_file_id,
    new_file_id,
    no_file,
    time_of,
)
from jobs.files.room import MAX_FILES, Room
from jobs.files.upload_records import remove_expired_uploads
from jobs.settings import Settings
from jobs.storage.connection import SyncRedis

_STALE_AFTER_S = 60.0  # an entry without a file is of one that is being stored, for at most so long


class FileStore:
    """Files below ``settings.files_folder``. Synchronous: call it in a thread."""

    def __init__(self, settings: Settings, redis: SyncRedis) -> None:
        self._settings = settings
        self._redis = redis
        self.folder = FilesFolder(settings.files_folder)
        self._room = Room(self.folder, settings.files_max_bytes)

    def record(self, file_id: str) -> FileRecord:
        """The record of a file.

        Raises ``FileNotFoundInStoreError``, and ``FileElsewhereError`` for one that lies in the
        folder of another machine.
        """
        if not is_file_id(file_id):
            raise no_file(file_id)
        found = self._read(self._path(file_id))
        if found is None:
            self._refuse_elsewhere(file_id)
            raise no_file(file_id)
        if found.is_expired(time.time()):
            raise no_file(file_id)
        return found

    def path(self, file_id: str) -> Path:
        """Where the file lies. Raises as ``record`` does."""
        self.record(file_id)
        return self._path(file_id)

    def new_partial(self, num_bytes: int = 0, max_bytes: int | None = None) -> PartialFile:
        """Begin to write a file of about ``num_bytes``, and ``max_bytes`` at most.

        Its writer closes it in the end; before, ``add`` makes a file of it. Raises
        ``FilesFullError``.
        """
        self.check_room(num_bytes)
        self.folder.make()
        limit = self._settings.max_file_bytes if max_bytes is None else max_bytes
        return PartialFile.create(self.folder.partial, limit)

    def write(self, partial: PartialFile, data: bytes) -> None:
        """Append to a partial file. Raises as its ``write``, and ``FilesFullError``."""
        self.check_room(0)
        partial.write(data)

    def add(
        self,
        partial: PartialFile,
        filename: str,
        purpose: str,
        owner: str,
        expires_at: float | None = None,
        file_id: str | None = None,
    ) -> FileRecord:
        """Store what was written, durably. The partial file is still to be closed."""
        partial.sync()
        file_id = file_id or new_file_id()
        record = FileRecord(
            id=file_id,
            bytes=partial.num_bytes,
            created_at=time.time(),
            filename=filename,
            purpose=purpose,
            sha256=partial.sha256,
            owner=owner,
            expires_at=expires_at,
        )
        self._store(partial.path, record)
        return record

    def add_from_path(
        self,
        path: Path,
        filename: str,
        purpose: str,
        owner: str,
        expires_at: float | None = None,
        file_id: str | None = None,
    ) -> FileRecord:
        """Move a finished file into the store, durably.

        With a ``file_id`` of ``new_file_id`` it can be repeated: if the store has that file, its
        record is returned, and ``path`` may be missing. No limit applies.
        """
        if file_id is not None and (found := self._read(self._path(file_id))) is not None:
            path.unlink(missing_ok=True)
            return found
        self.folder.make()
        with contextlib.closing(PartialFile.open_finished(path)) as finished:
            return self.add(finished, filename, purpose, owner, expires_at, file_id)

    def link_into(self, file_id: str, folder: Path, name: str) -> Path:
        """Make the file appear in a folder, so that it stays there when it is deleted here."""
        source, target = self.path(file_id), folder / name
        draft = folder / f"{name}.{secrets.token_hex(4)}.draft"
        try:
            with disk_errors():
                link_or_copy(source, draft)
                os.replace(draft, target)
                sync_folder(folder)
        except FileNotFoundError:
            raise no_file(file_id) from None
        finally:
            draft.unlink(missing_ok=True)
        return target

    def delete(self, file_id: str) -> None:
        """Remove a file. Raises as ``record`` does."""
        self._remove(self.record(file_id))

    def list_files(
        self,
        owner: str | None,
        *,
        after: str = "",
        limit: int = 10_000,
        purpose: str | None = None,
        is_newest_first: bool = True,
    ) -> tuple[list[FileRecord], bool]:
        """At most ``limit`` files of the caller, or of all for ``None``; whether there are more."""
        index = self._index()
        self.ensure_index(index)
        now = time.time()
        entries = index.in_order(owner, after, is_newest_first=is_newest_first)
        listed = (self._listed(index, file_id, entry, owner) for file_id, entry in entries)
        found = (
            record
            for record in listed
            if record is not None
            and not record.is_expired(now)
            and purpose in (None, record.purpose)
        )
        page = list(islice(found, limit + 1))
        return page[:limit], len(page) > limit

    def check_room(self, num_bytes: int) -> None:
        """Raises ``FilesFullError`` if that many bytes more are too many."""
        if self._room.is_full(num_bytes):
            self.forget_expired()
            self._room.measure()
            if self._room.is_full(num_bytes):
                raise FilesFullError(
                    f"all files may take {self._room.max_bytes} bytes (MGS_FILES_MAX_BYTES) and be "
                    f"{MAX_FILES} at most: delete some"
                )

    def forget_expired(self) -> int:
        """Remove expired files and what killed processes left. How many were removed."""
        if not self.folder.root.exists():
            return 0
        index = self._index()
        self.ensure_index(index)
        num_removed = 0
        for file_id in index.expired(time.time()):
            found = self._read(self._path(file_id)) if is_file_id(file_id) else None
            if found is not None:
                self._remove(found)
            else:
                entry = index.read(file_id)
                index.drop(file_id, entry.record.owner if entry else "")
            num_removed += 1
        num_removed += remove_expired_uploads(self.folder, time.time())
        return num_removed + self.folder.remove_leftovers() + self._remove_damaged()

    def ensure_index(self, index: FileIndex | None = None, *, is_forced: bool = False) -> None:
        """Write the folder's files into the index, if it has lost them."""
        index = index or self._index()
        if not index.home or (index.is_complete() and not is_forced):
            return
        found = (self._read(path.with_suffix("")) for path in self.folder.record_paths())
        records = (record for record in found if record is not None)
        while chunk := list(islice(records, 500)):
            index.put(chunk)
        index.mark_complete()

    def _index(self) -> FileIndex:
        return FileIndex(self._redis, self.folder.known_uid())

    def _path(self, file_id: str) -> Path:
        return self.folder.files / file_id

    def _read(self, path: Path) -> FileRecord | None:
        return read_record(path, self._index())

    def _store(self, source: Path, record: FileRecord) -> None:
        """First the index: an entry without a file is dropped, a file without one is not listed."""
        FileIndex(self._redis, self.folder.uid()).put([record])
        target = self._path(record.id)
        move(source, target)
        try:
            sync_folder(self.folder.files)
            write_whole(record_path(target), encode_record(record))
        except BaseException:
            move(target, source)
            raise
        self._room.note(record.bytes)

    def _remove(self, record: FileRecord) -> None:
        path = self._path(record.id)
        record_path(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        with contextlib.suppress(RedisError):  # who lists the files finds that it is gone
            self._index().drop(record.id, record.owner)

    def _refuse_elsewhere(self, file_id: str) -> None:
        index = self._index()
        entry = index.read(file_id)
        if entry is None or entry.home == index.home:
            return
        node = index.node_of(entry.home)
        if node is not None:
            raise FileElsewhereError(f"the file {file_id} lies on the machine {node!r}: ask there")

    def _listed(
        self, index: FileIndex, file_id: str, entry: IndexedFile | None, owner: str | None
    ) -> FileRecord | None:
        """The record of an id of the index; ``None`` if its file is gone, then it is dropped."""
        is_id = is_file_id(file_id)
        if entry is not None and entry.home != index.home:
            found = entry.record if index.node_of(entry.home) is not None else None
        elif entry is not None and record_path(self._path(file_id)).exists():
            found = entry.record
        else:
            found = self._read(self._path(file_id)) if is_id else None
            if found is not None:  # its entry is damaged
                index.put([found])
        is_young = is_id and time.time() - time_of(file_id) < _STALE_AFTER_S
        if found is None and not is_young:
            index.drop(file_id, entry.record.owner if entry else owner or "")
        return found

    def _remove_damaged(self) -> int:
        """Remove files whose record could not be read for a long time."""
        num_removed = 0
        for path in self.folder.record_paths():
            if is_long_damaged(path) and self._read(path.with_suffix("")) is None:
                path.with_suffix("").unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                num_removed += 1
        return num_removed
