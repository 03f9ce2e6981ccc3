"""A batch in the hands of the one process that works on it: locked folder, lease, record."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from redis.exceptions import RedisError

from api.execution.runner import JobRunner
from jobs.batches.folder import BatchFolder
from jobs.batches.records import BatchRecord, BatchStatus
from jobs.batches.store import BatchStore

LEASE_S = 10.0
_RENEW_S = 3.0
_RETRY_S = 1.0
_T = TypeVar("_T")
_MACHINE = platform.node()
_PROCESS = secrets.token_hex(8)

log = logging.getLogger(__name__)


class LeaseLostError(Exception):
    """Another process works on the batch."""


class HeldBatch:
    """``record`` is what was saved last. ``is_cancelling`` is set once it is to be cancelled."""

    def __init__(
        self, store: BatchStore, runner: JobRunner, record: BatchRecord, folder: BatchFolder
    ) -> None:
        self.record = record
        self.folder = folder
        self.is_cancelling = asyncio.Event()
        self._store = store
        self._runner = runner
        self._lease = ""
        self._descriptor: int | None = None
        self._saving = asyncio.Lock()

    @classmethod
    async def take(cls, store: BatchStore, runner: JobRunner, batch_id: str) -> HeldBatch | None:
        """Lock the batch and take its lease; ``None`` while another process has it."""
        folder = store.folder(batch_id)
        record = await runner.in_thread(store.get, batch_id)
        held = cls(store, runner, record, folder)
        held._descriptor = folder.lock()
        if held._descriptor is None:
            return None
        try:
            await held.renew()
            # Again, since the former owner may have changed it before the lock was ours.
            held.record = await runner.in_thread(store.get, batch_id)
            await held._catch_up_with_disk()
        except BaseException as error:
            held._unlock()
            if isinstance(error, LeaseLostError):
                return None
            raise
        held._note_status(held.record.status)
        if folder.is_cancelled and held.record.is_cancellable:
            await held.save(status=BatchStatus.CANCELLING, cancelling_at=int(time.time()))
            held.is_cancelling.set()
        return held

    @property
    def has_ended(self) -> bool:
        return self.record.status.is_terminal

    async def release(self) -> None:
        """Let another process take the batch."""
        if self._lease:
            with contextlib.suppress(RedisError):
                await self._runner.in_thread(self._store.release, self.record.id, self._lease)
        self._unlock()

    def _unlock(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    async def keep_renewed(self) -> None:
        """Renew the lease until it is lost (``LeaseLostError``)."""
        while True:
            await asyncio.sleep(_RENEW_S)
            with contextlib.suppress(RedisError):  # nobody else can take it meanwhile either
                await self.renew()

    async def renew(self) -> None:
        """Renew the lease, and look whether the batch is to be cancelled."""
        args = (self.record.id, _MACHINE, _PROCESS, LEASE_S)
        lease, status = await self._runner.in_thread(self._store.lease, *args)
        if not status:  # Redis has lost its data
            await self._runner.in_thread(self._store.put, self.record)
            lease, status = await self._runner.in_thread(self._store.lease, *args)
        if not lease:
            raise LeaseLostError(self.record.id)
        self._lease = lease
        self._note_status(BatchStatus(status))

    def _note_status(self, status: BatchStatus) -> None:
        if status is BatchStatus.CANCELLING:
            self.is_cancelling.set()

    async def _catch_up_with_disk(self) -> None:
        """What is on disk has happened, also if Redis has lost its last second."""
        found = await self._runner.in_thread(self.folder.read)
        if _STAGES[found.status] > _STAGES[self.record.status]:
            former, self.record = self.record.status, found
            await self._runner.in_thread(self._store.set, found, [former], self._lease)

    async def save(self, **changes: Any) -> None:
        """Change the record. One that is being cancelled keeps that status until it has ended."""
        async with self._saving:
            await self._save(changes)

    async def _save(self, changes: dict[str, Any]) -> None:
        while True:
            new = msgspec.structs.replace(self.record, **changes)
            if new.status.is_terminal:
                # First on disk: what is told has happened.
                await self._runner.in_thread(self.folder.write, new)
            answer = await self.insist(self._store.set, new, [self.record.status], self._lease)
            if answer == "done":
                break
            await self._resolve(answer)
            if self.is_cancelling.is_set() and changes.get("status") in _OVERTAKEN:
                del changes["status"]
        is_new_status = new.status is not self.record.status
        self.record = new
        if is_new_status and not new.status.is_terminal:
            await self._runner.in_thread(self.folder.write, new)

    async def _resolve(self, answer: str) -> None:
        """After a refusal: have the lease, and the record as it is."""
        if answer in ("gone", "lease"):
            await self.insist_async(self.renew)
            return
        found = await self.insist(self._store.get, self.record.id)
        if found.status.is_terminal:
            raise LeaseLostError(f"{self.record.id} is {found.status.value}")
        status, cancelling_at = found.status, found.cancelling_at
        self.record = msgspec.structs.replace(
            self.record, status=status, cancelling_at=cancelling_at
        )
        self._note_status(status)

    async def insist(self, call: Callable[..., _T], *args: Any) -> _T:
        """Call in a thread, again and again while Redis fails."""
        while True:
            try:
                return await self._runner.in_thread(call, *args)
            except RedisError as error:
                facts = {"batch": self.record.id, "error": str(error)}
                log.warning("a batch waits for Redis", extra=facts)
                await asyncio.sleep(_RETRY_S)

    async def insist_async(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """The same for a coroutine."""
        while True:
            try:
                return await call()
            except RedisError:
                await asyncio.sleep(_RETRY_S)


_STAGES = {
    BatchStatus.VALIDATING: 0,
    BatchStatus.IN_PROGRESS: 1,
    BatchStatus.CANCELLING: 2,
    BatchStatus.FINALIZING: 2,
    BatchStatus.FAILED: 3,
    BatchStatus.COMPLETED: 3,
    BatchStatus.EXPIRED: 3,
    BatchStatus.CANCELLED: 3,
}
_OVERTAKEN = (BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING)
"""Statuses that a request to cancel replaces."""
