"""The index of the files in Redis: for lists, over all machines.

The records on disk are the truth. Each folder writes its own into the index, and again when its
mark is missing: then Redis has lost its data, or nobody has asked for a month.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.contract.errors import ContractError
from jobs.files.folder import record_path, write_whole
from jobs.files.record import FileRecord, decode_record, encode_record
from jobs.storage import object_names
from jobs.storage.connection import SyncRedis

log = logging.getLogger(__name__)

_MARK_TTL_S = 30 * 86400
_AT_ONCE = 500
_RECORD = "record"
_HOME = "home"


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """An entry: the record, and the uid of the folder in which the file lies."""

    record: FileRecord
    home: str


class FileIndex:
    """Index entries of the folder with the uid ``home``, and those of the others.

    For one piece of work: it remembers what it has read of other machines.
    """

    def __init__(self, redis: SyncRedis, home: str) -> None:
        self._redis = redis
        self.home = home
        self._nodes: dict[str, str | None] = {}

    def is_complete(self) -> bool:
        """Whether the index has this folder's files. It says that the folder is in use, too."""
        return self._redis.getex(object_names.file_home_key(self.home), ex=_MARK_TTL_S) is not None

    def mark_complete(self) -> None:
        """From now on the index has this folder's files."""
        self._redis.set(object_names.file_home_key(self.home), platform.node(), ex=_MARK_TTL_S)

    def node_of(self, home: str) -> str | None:
        """Name of the machine with that folder; ``None`` if it was not seen for a month."""
        if home not in self._nodes:
            found = self._redis.get(object_names.file_home_key(home))
            self._nodes[home] = None if found is None else found.decode(errors="replace")
        return self._nodes[home]

    def put(self, records: Iterable[FileRecord]) -> None:
        """Add entries, or write them again."""
        with self._redis.pipeline() as pipe:
            for record in records:
                values = {_RECORD: encode_record(record), _HOME: self.home}
                pipe.delete(object_names.file_key(record.id))  # whatever lies there
                pipe.hset(object_names.file_key(record.id), mapping=values)
                pipe.zadd(object_names.FILES, {record.id: 0})
                pipe.zadd(object_names.files_key(record.owner), {record.id: 0})
                if record.expires_at is not None:
                    expiry = object_names.file_expiry_key(self.home)
                    pipe.zadd(expiry, {record.id: record.expires_at})
            pipe.execute()

    def drop(self, file_id: str, owner: str) -> None:
        """Remove an entry."""
        with self._redis.pipeline() as pipe:
            pipe.delete(object_names.file_key(file_id))
            pipe.zrem(object_names.FILES, file_id)
            pipe.zrem(object_names.files_key(owner), file_id)
            pipe.zrem(object_names.file_expiry_key(self.home), file_id)
            pipe.execute()

    def read(self, file_id: str) -> IndexedFile | None:
        """The entry of an id, if there is one that can be read."""
        return self._read_all([file_id])[0]

    def expired(self, now: float) -> list[str]:
        """Ids of this folder's files whose time is over."""
        found = self._redis.zrangebyscore(object_names.file_expiry_key(self.home), "-inf", now)
        return [one.decode() for one in found]

    def in_order(
        self, owner: str | None, after: str, *, is_newest_first: bool
    ) -> Iterator[tuple[str, IndexedFile | None]]:
        """Ids and entries of the caller's files, or of all, after that id.

        The entry is ``None`` where it is lost or cannot be read.
        """
        key = object_names.FILES if owner is None else object_names.files_key(owner)
        while True:
            ids = self._ids(key, after, is_newest_first)
            yield from zip(ids, self._read_all(ids), strict=True)
            if len(ids) < _AT_ONCE:
                return
            after = ids[-1]

    def _ids(self, key: str, after: str, is_newest_first: bool) -> list[str]:
        start = f"({after}" if after else "+" if is_newest_first else "-"
        if is_newest_first:
            found = self._redis.zrevrangebylex(key, start, "-", start=0, num=_AT_ONCE)
        else:
            found = self._redis.zrangebylex(key, start, "+", start=0, num=_AT_ONCE)
        return [one.decode(errors="replace") for one in found]

    def _read_all(self, ids: list[str]) -> list[IndexedFile | None]:
        with self._redis.pipeline(transaction=False) as pipe:
            for file_id in ids:
                pipe.hmget(object_names.file_key(file_id), [_RECORD, _HOME])
            return [_decode(found) for found in pipe.execute(raise_on_error=False)] if ids else []


def _decode(found: list[bytes | None] | Exception) -> IndexedFile | None:
    if isinstance(found, Exception):
        return None  # a key of another type
    record, home = found
    if record is None or home is None:
        return None
    try:
        return IndexedFile(decode_record(record), home.decode(errors="replace"))
    except ContractError:
        return None  # one that cannot be read must not hide the others


def read_record(path: Path, index: FileIndex) -> FileRecord | None:
    """The record of the file at ``path``; a damaged one is restored from the index."""
    try:
        return decode_record(record_path(path).read_bytes())
    except FileNotFoundError:
        return None
    except (ContractError, OSError) as error:
        entry = index.read(path.name)
        is_known = entry is not None and entry.home == index.home
        facts = {"file": path.name, "error": str(error), "is_restored": is_known}
        log.warning("damaged record of a file", extra=facts)
        if entry is None or not is_known:
            return None
        write_whole(record_path(path), encode_record(entry.record))
        return entry.record
