"""The batches: on disk, with an index in Redis that is written again after a loss of its data."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from jobs.batches.errors import BatchNotFoundError, BatchStateError, no_batch
from jobs.batches.folder import BatchFolder, folders_in
from jobs.batches.records import BatchRecord, BatchStatus, decode_batch, encode_batch
from jobs.contract.errors import ContractError
from jobs.files.folder import FilesFolder, disk_errors
from jobs.files.record import FileElsewhereError
from jobs.settings import Settings
from jobs.storage import object_names
from jobs.storage.connection import SyncRedis
from jobs.storage.lua import batch_scripts

PREFIXES = {"openai": "batch", "anthropic": "msgbatch"}
_ID = re.compile(r"(batch|msgbatch)_[0-9a-f]{32}")
_BEYOND_HEX = "g"
_KEPT_S = 30 * 86400  # as long as output files, by default

log = logging.getLogger(__name__)


def is_batch_id(value: str) -> bool:
    """Whether it has the form of an id. Anything else never becomes a path."""
    return _ID.fullmatch(value) is not None


def new_batch_id(kind: str = "openai") -> str:
    """A new id. Ids of one kind in alphabetical order are in order of creation."""
    milliseconds = int(time.time() * 1000)
    return f"{PREFIXES[kind]}_{milliseconds:012x}{secrets.token_hex(10)}"


class BatchStore:
    """The batches below ``settings.files_folder``. Synchronous: call it in a thread."""

    def __init__(self, settings: Settings, redis: SyncRedis) -> None:
        self._settings = settings
        self.redis = redis
        self._root = settings.files_folder / "batches"
        self._files = FilesFolder(settings.files_folder)
        self._put = redis.register_script(batch_scripts.PUT_BATCH)
        self._set = redis.register_script(batch_scripts.BATCH_SET)
        self._lease = redis.register_script(batch_scripts.LEASE_BATCH)
        self._release = redis.register_script(batch_scripts.RELEASE_BATCH)
        self._forget = redis.register_script(batch_scripts.FORGET_BATCH)

    @property
    def home(self) -> str:
        """The uid of the folder in which the batches lie."""
        return self._files.uid()

    def folder(self, batch_id: str) -> BatchFolder:
        """The folder of a batch. ``BatchNotFoundError`` for what is no id."""
        if not is_batch_id(batch_id):
            raise no_batch(batch_id)
        return BatchFolder(self._root / batch_id)

    def create(self, record: BatchRecord, add_input: Callable[[Path], object]) -> BatchRecord:
        """Store a new batch. ``add_input`` puts ``input.jsonl`` into the folder it gets."""
        folder = self.folder(record.id)
        record = _replace(record, home=self.home)
        try:
            with disk_errors():
                folder.make()
                add_input(folder.path)
                folder.write(record)
            self.put(record)
        except BaseException:
            folder.remove()
            raise
        return record

    def get(self, batch_id: str) -> BatchRecord:
        """Raises ``BatchNotFoundError``."""
        folder = self.folder(batch_id)
        data = self.redis.hget(object_names.batch_key(batch_id), "record")
        if data is not None:
            try:
                return decode_batch(data)
            except ContractError as error:
                log.warning("the record of a batch is unreadable", extra={"error": error.message})
        try:
            record = folder.read()
        except ContractError:
            raise no_batch(batch_id) from None
        self.put(record)
        return record

    def local_folder(self, record: BatchRecord) -> BatchFolder:
        """The folder of a batch; ``FileElsewhereError`` where another machine has it."""
        folder = self.folder(record.id)
        if not folder.exists:
            raise FileElsewhereError(f"the files of {record.id} lie on another machine")
        return folder

    def page(
        self, caller: str | None, kind: str, *, after: str = "", before: str = "", limit: int
    ) -> tuple[list[BatchRecord], bool]:
        """The newest batches of a caller, or of all for ``None``; whether there are more.

        ``after`` is an id beyond which the page goes on, ``before`` one above which it lies.
        """
        self.ensure_index()
        key = object_names.BATCHES if caller is None else object_names.batches_key(caller)
        low, high = f"[{PREFIXES[kind]}_", f"({PREFIXES[kind]}_{_BEYOND_HEX}"
        if before:
            ids = self.redis.zrangebylex(key, f"({before}", high, start=0, num=limit + 1)
        else:
            top = f"({after}" if after else high
            ids = self.redis.zrevrangebylex(key, top, low, start=0, num=limit + 1)
        chosen = ids[:limit]
        records = self._read_all(one.decode() for one in chosen)
        return (records[::-1] if before else records), len(ids) > limit

    def _read_all(self, ids: Iterable[str]) -> list[BatchRecord]:
        found = []
        for batch_id in ids:
            try:
                found.append(self.get(batch_id))
            except (ContractError, BatchNotFoundError):
                continue  # one that is gone or unreadable must not hide the others
        return found

    def cancel(self, batch_id: str) -> BatchRecord:
        """Request a cancel. A batch that is cancelled or being cancelled stays as it is.

        Raises ``BatchNotFoundError``, and ``BatchStateError`` for one that has ended otherwise.
        """
        while True:
            record = self.get(batch_id)
            if record.status in (BatchStatus.CANCELLING, BatchStatus.CANCELLED):
                return record
            if not record.is_cancellable:
                raise BatchStateError(f"the batch is {record.status.value}: it cannot be cancelled")
            folder = self.folder(batch_id)
            if folder.exists:
                folder.note_cancel()
            status = BatchStatus.CANCELLING
            new = _replace(record, status=status, cancelling_at=int(time.time()))
            if self.set(new, [record.status], wakes=True) == "done":
                return new

    def set(
        self,
        record: BatchRecord,
        allowed: Iterable[BatchStatus],
        lease: str = "",
        *,
        wakes: bool = False,
    ) -> str:
        """Replace the record in Redis while its status is one of ``allowed``.

        Returns ``done``, ``gone``, ``lease`` when the lease is lost, or the status it has.
        """
        keys = [
            object_names.batch_key(record.id),
            object_names.batch_lease_key(record.id),
            object_names.ACTIVE_BATCHES,
        ]
        is_active = int(not record.status.is_terminal)
        args: list[str | bytes | int] = [record.id, record.status.value, encode_batch(record)]
        args += [",".join(one.value for one in allowed), is_active, lease, int(wakes)]
        is_told = record.status.is_terminal and record.kind == "openai"
        args += [f"batch.{record.status.value}" if is_told else "", record.caller]
        args += [object_names.BATCH_WAKEUP]
        return str(self._set(keys=keys, args=args).decode())

    def lease(self, batch_id: str, machine: str, process: str, ttl_s: float) -> tuple[str, str]:
        """Take or renew the lease: it ("" if another process has it), and the batch's status."""
        keys = [object_names.batch_lease_key(batch_id), object_names.batch_key(batch_id)]
        lease, status = self._lease(keys=keys, args=[machine, process, int(ttl_s * 1000)])
        return lease.decode(), status.decode()

    def release(self, batch_id: str, lease: str) -> None:
        """Give the lease up, unless it has become another process's."""
        self._release(keys=[object_names.batch_lease_key(batch_id)], args=[lease])

    def active(self) -> list[str]:
        """Ids of the batches that have not ended, the oldest first."""
        found = (
            one.decode(errors="replace") for one in self.redis.smembers(object_names.ACTIVE_BATCHES)
        )
        return sorted(found, key=lambda batch_id: batch_id.rpartition("_")[2])

    def drop_lost(self) -> None:
        """Forget batches of this folder that are only in Redis: their creation has failed."""
        for batch_id in self.active():
            if is_batch_id(batch_id) and not self.folder(batch_id).exists:
                record = self.get(batch_id)
                if record.home == self.home:
                    self.forget(record)

    def ensure_index(self, *, is_forced: bool = False) -> None:
        """Write this folder's batches into Redis, if it has lost them."""
        mark = object_names.batch_home_key(self.home)
        if not is_forced and self.redis.exists(mark):
            return
        for folder in folders_in(self._root):
            try:
                self.put(folder.read())
            except ContractError as error:
                log.warning("a batch is unreadable", extra={"error": error.message})
        self.redis.set(mark, "1")

    def forget_old(self, now: float) -> None:
        """Remove this machine's batches that ended a month ago, and what was never one."""
        for folder in folders_in(self._root):
            if folder.is_abandoned(now):
                folder.remove()
                continue
            try:
                record = self.get(folder.path.name)
            except (ContractError, BatchNotFoundError):
                continue
            if record.ended_at is not None and record.ended_at + _KEPT_S < now:
                self.forget(record)

    def forget(self, record: BatchRecord) -> None:
        """Remove a batch that has ended, with its folder."""
        self.folder(record.id).remove()
        keys = [
            object_names.batch_key(record.id),
            object_names.batch_lease_key(record.id),
            object_names.BATCHES,
        ]
        keys += [object_names.batches_key(record.caller), object_names.ACTIVE_BATCHES]
        self._forget(keys=keys, args=[record.id])

    def put(self, record: BatchRecord) -> None:
        """Write a batch into Redis, if it is not there."""
        keys = [
            object_names.batch_key(record.id),
            object_names.BATCHES,
            object_names.batches_key(record.caller),
        ]
        keys += [object_names.ACTIVE_BATCHES]
        is_active = int(not record.status.is_terminal)
        args = [
            record.id,
            record.status.value,
            encode_batch(record),
            is_active,
            object_names.BATCH_WAKEUP,
        ]
        self._put(keys=keys, args=args)


def _replace(record: BatchRecord, **changes: object) -> BatchRecord:
    return msgspec.structs.replace(record, **changes)
