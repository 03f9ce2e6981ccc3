"""Submits jobs and follows their events: subscribe, then submit; every wait has a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar

from redis.exceptions import RedisError

from api.execution.data_loss_check import DataLossCheck
from api.execution.desired_cache import DesiredCache
from api.execution.keep_alive import KeepAlive
from api.execution.worker_liveness import Missing, WorkerLiveness, absent_models
from api.idempotency.claim import Claim
from api.idempotency.readers import JobReaders
from jobs import asyncio_tasks
from jobs.contract.errors import (
    ContractError,
    JobError,
    JobNotFoundError,
    KeyLimitError,
    ModelUnloadedError,
    NotReadyError,
)
from jobs.contract.events import Event, EventKind
from jobs.contract.records import DesiredModel, JobClass, decode_record
from jobs.keys.caller import NOBODY, Caller
from jobs.keys.limits import KeyLimits, RateReport
from jobs.platform.awake_time import awake_timeout
from jobs.storage import names
from jobs.storage.connection import AsyncRedis
from jobs.storage.contact import RedisContact
from jobs.storage.desired_models import DesiredModels
from jobs.storage.store import JobStore
from jobs.storage.submitter import Submission
from jobs.stream.hub import EventHub
from jobs.stream.subscription import Subscription

_SUBSCRIBE_TIMEOUT_S = 30.0
_END_TRIES = 60
_END_RETRY_S = 0.5
_STOP_TIMEOUT_S = 2.0
_NUM_THREADS = 16

log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Ticket:
    """A submission, and the desired model that it is for."""

    submission: Submission
    desired: DesiredModel

    @property
    def job_id(self) -> str:
        return self.submission.job_id


class JobRunner:
    """Submits, follows and ends jobs. ``job_class``: of all generations, whatever requests say."""

    def __init__(
        self,
        store: JobStore,
        desired_models: DesiredModels,
        hub: EventHub,
        redis: AsyncRedis,
        name: str,
        contact: RedisContact,
        max_keep_alive_s: float = 0.0,
        orphan_s: float = 30.0,
    ) -> None:
        self.name = name
        self.caller_info = NOBODY
        self.job_class: JobClass | None = None
        self._report: RateReport | None = None
        self._limits = KeyLimits(redis)
        self.claim: Claim | None = None
        self._keep_alive = KeepAlive(desired_models, self.in_thread, max_keep_alive_s)
        self.hub = hub
        self.store = store
        self._desired_models = desired_models
        self._redis = redis
        self._threads = ThreadPoolExecutor(_NUM_THREADS, "api")
        self._ends: set[asyncio.Task[None]] = set()
        self._storage = DataLossCheck(redis)
        self._desired_cache = DesiredCache(redis, hub)
        self.liveness = WorkerLiveness(self._find_absent, contact)
        self.readers = JobReaders(redis, store, name, orphan_s, self.in_thread)

    def for_caller(self, caller: Caller, report: RateReport | None = None) -> JobRunner:
        """A copy of the runner that submits jobs as ``caller``, and says so to ``report``."""
        runner = copy.copy(self)
        runner.caller_info, runner._report = caller, report
        return runner

    def with_claim(self, claim: Claim | None) -> JobRunner:
        """A copy of the runner for a request with an idempotency key."""
        runner = copy.copy(self)
        runner.claim = claim
        return runner

    def new_suffix(self) -> str:
        """The part of a new job's id that makes it unique: 128 bits, drawn or the claim's."""
        return self.claim.suffix if self.claim else secrets.token_hex(16)

    def created_s(self) -> int:
        """When the request came, in epoch seconds, as its answers show it."""
        return self.claim.created if self.claim else int(time.time())

    async def in_thread(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run a synchronous call in a thread."""
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, partial(call, *args, **kwargs)
        )

    async def desired_models(self) -> dict[str, DesiredModel]:
        """The desired models that the caller may use, by slug, in the order of their model ids.

        ``StorageLostError`` when Redis has lost them and no supervisor has restored them yet.
        """
        found = await self._desired_cache.read()
        await self._storage.check(is_missing=not found)
        return {s: one for s, one in found.items() if self.caller_info.may_use(one.load.model_name)}

    async def submit(self, submission: Submission) -> None:
        """Queue a job as the caller, if its key allows that (``KeyLimits.apply``). Idempotent."""
        allowed = await self._limits.apply(submission, self.caller_info, self._report)
        try:
            await self.store.submit_through(self._redis, allowed)
        except KeyLimitError as error:
            error.retry_after_s = await self._limits.wait_s(allowed)
            raise

    async def submit_for(self, ticket: Ticket) -> None:
        """``submit``; a supervisor that may have to start the model looks at once."""
        if self.claim is not None and self.claim.is_existing:
            return  # the request only follows the job, so no limit concerns it
        self._limits.check_model(ticket.desired, self.caller_info)
        if ticket.submission.keep_alive_s is not None:
            seconds, may_manage = ticket.submission.keep_alive_s, self.caller_info.may_manage
            await self._keep_alive.set(ticket.desired, seconds, may_manage=may_manage)
        await self.submit(ticket.submission)
        if ticket.desired.is_parked:
            with contextlib.suppress(RedisError):  # it looks once a second in any case
                await self._redis.publish(names.WAKEUP, b"")

    async def submit_ticket(self, ticket: Ticket) -> None:
        """Submit a background job; when this raises, the job is cancelled.

        ``ModelUnloadedError`` if the model was unloaded meanwhile: the job would never be taken.
        """
        claim = self.claim
        if claim is not None:
            await self.readers.bind(claim, ticket.submission, is_read=False)
        try:
            await self.submit_for(ticket)
        except (RedisError, asyncio.CancelledError):  # the job may have been submitted
            if claim is not None:
                raise  # then who repeats the request finds it
            self.cancel_soon(ticket.job_id, "the request ended before its job was accepted")
            raise
        is_existing = claim is not None and claim.is_existing
        if not is_existing and await self._was_unloaded(ticket.desired):
            self.cancel_soon(ticket.job_id, "the model was unloaded")
            await self._delete_stored(ticket.submission)
            raise ModelUnloadedError(f"model_id {ticket.desired.model_id!r} was unloaded")

    async def _was_unloaded(self, desired: DesiredModel) -> bool:
        try:
            return not await self.is_desired(desired)
        except (RedisError, ContractError):
            return False  # unknown: the job stays accepted

    async def _delete_stored(self, submission: Submission) -> None:
        if submission.stored_key:
            with contextlib.suppress(RedisError):
                await self._redis.delete(submission.stored_key)

    async def is_desired(self, desired: DesiredModel) -> bool:
        """True while this is the desired model of its id; raises as ``desired_models``.

        ``ContractError`` when the stored value cannot be decoded.
        """
        data = await self._redis.hget(names.DESIRED_MODELS, names.slug_of(desired.model_id))
        if data is None:
            await self._storage.check(is_missing=True)
            return False
        return decode_record(DesiredModel, data).uid == desired.uid

    @contextlib.asynccontextmanager
    async def subscribe(self, job_id: str) -> AsyncIterator[Subscription]:
        """A confirmed subscription, or ``NotReadyError`` when Redis does not confirm in time."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(_SUBSCRIBE_TIMEOUT_S):
                    subscription = await stack.enter_async_context(self.hub.subscribe(job_id))
            except TimeoutError:
                raise NotReadyError("Redis has not confirmed the subscription in time") from None
            yield subscription

    async def wait_existing(self, job_id: str, timeout_s: float) -> Event:
        """The ``finished`` event of a job that was submitted before; raises its error."""
        async with self.subscribe(job_id) as subscription:
            subscription.note_gap()  # to read the log first
            return await self.read_end(subscription, timeout_s)

    async def read_end(self, subscription: Subscription, timeout_s: float) -> Event:
        """The job's ``finished`` event; raises its error, or ``NotReadyError`` after the deadline.

        ``JobNotFoundError`` when its events are gone.
        """
        try:
            async with awake_timeout(timeout_s):
                async for event in self.hub.read(subscription):
                    check(event)
                    if event.is_terminal:
                        return event
        except TimeoutError:
            raise NotReadyError(f"no end of the job within {timeout_s:g} s") from None
        raise JobNotFoundError("the events of the job are gone", "job_id")

    async def _find_absent(self, slugs: list[str]) -> dict[str, Missing]:
        return await self.in_thread(absent_models, self.store, self._desired_models, slugs)

    def cancel_soon(self, job_id: str, reason: str) -> None:
        """Cancel a job in a separate task, which is not cancelled with the caller."""
        self._end_soon(self.store.cancel, job_id, reason)

    def abandon_soon(self, job_id: str, error: JobError) -> None:
        """End a job of an absent worker, in the same way."""
        self._end_soon(self.store.abandon, job_id, error)

    def _end_soon(self, end: Callable[..., Any], job_id: str, reason: Any) -> None:
        task = asyncio_tasks.start(partial(self._end, end, job_id, reason), f"end {job_id}")
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    async def _end(self, end: Callable[..., Any], job_id: str, reason: Any) -> None:
        for _ in range(_END_TRIES):
            try:
                await self.in_thread(end, job_id, reason)
                return
            except JobNotFoundError:
                return
            except RedisError as error:
                log.warning(
                    "a job could not be ended yet", extra={"job": job_id, "error": str(error)}
                )
                await asyncio.sleep(_END_RETRY_S)
        log.error("a job could not be ended", extra={"job": job_id})

    async def stop(self) -> None:
        """Wait briefly for ends that have begun, then stop the threads."""
        self.liveness.stop()
        await self.readers.stop()
        if self._ends:
            await asyncio.wait(self._ends, timeout=_STOP_TIMEOUT_S)
        self._threads.shutdown(wait=False, cancel_futures=True)


def check(event: Event) -> None:
    """Raise the error of a job that failed or was cancelled."""
    if event.kind in (EventKind.FAILED, EventKind.CANCELLED):
        raise error_of(event)


def error_of(event: Event) -> JobError:
    """The error that ended the job."""
    if event.error is None:
        return JobError("the job failed without a reason")
    return JobError.from_info(event.error)
