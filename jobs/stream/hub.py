"""One subscription connection per API process that serves every open stream.

Pub/sub is the bell: fast, and allowed to lose messages. A reader takes events from here, and goes
to the log on a gap, after a second of silence or some, and whenever the connection was re-made.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from redis.exceptions import RedisError

from jobs import asyncio_tasks
from jobs.contract.errors import (
    ContractError,
    JobError,
    JobNotFoundError,
    NotReadyError,
    StorageLostError,
)
from jobs.contract.events import BEFORE_ALL, Event, EventId, decode_event
from jobs.contract.records import JobStatus
from jobs.storage import names
from jobs.storage.connection import AsyncRedis, is_transient, within
from jobs.storage.event_log import read_log_async
from jobs.stream.sequencing import EventMerger, Verdict
from jobs.stream.subscriber_connection import SubscriberConnection
from jobs.stream.subscription import Channel, Subscription

_PAGE_EVENTS = 256  # read from the log at once: a slow reader of a long job needs no more memory
_SILENT_S = 1.0
_TICK_S = 0.25
_MAX_LOOKS_PER_S = 200  # of all readers together: a thousand silent ones must not fill the loop
_WAKEUP = names.WAKEUP.encode()
_RECONNECT_S = 0.2
_READ_S = 5.0  # a frozen Redis is asked again, on another connection
_CONNECT_S = 5.0  # of silence: a confirmation comes after all messages that Redis sent before it
_ENDED = frozenset(status.value for status in JobStatus if status.is_terminal)

log = logging.getLogger(__name__)


class EventHub:
    """Owns the connection; hands out subscriptions.

    ``subscriber`` makes the subscription connection and must not retry by itself. A lost
    connection is replaced by the listening task, with a fresh one.
    """

    def __init__(self, redis: AsyncRedis, subscriber: AsyncRedis) -> None:
        self._redis = redis
        self._subscriber = subscriber
        self._connection: SubscriberConnection | None = None
        self._channels: dict[bytes, Channel] = defaultdict(Channel)
        self._connected = asyncio.Event()
        self._last_message_at = float("-inf")
        self._num_wakeups = 0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def num_wakeups(self) -> int | None:
        """Another number once the desired models have changed; ``None`` while nobody would tell."""
        return self._num_wakeups if self._connected.is_set() else None

    async def start(self) -> None:
        """Begin to listen; Redis may come later."""
        self._tasks = [
            asyncio_tasks.keep_running(self._listen, "event-hub"),
            asyncio_tasks.keep_running(self._check_silent_readers, "event-hub silent readers"),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._close()

    @contextlib.asynccontextmanager
    async def subscribe(self, job_id: str) -> AsyncIterator[Subscription]:
        """A subscription that Redis has confirmed: nothing published from now on is missed.

        ``NotReadyError`` when Redis says nothing for some seconds.
        """
        await self._wait_for(self._connected)
        name = names.event_channel(job_id).encode()
        subscription = Subscription(job_id)
        channel = self._channels[name]
        is_first = not channel.listeners
        channel.listeners.add(subscription)
        try:
            # A connection that is lost just now is replaced, with this channel too.
            if is_first and self._connection is not None:
                self._connection.subscribe([name])
            await self._wait_for(channel.confirmed)
            yield subscription
        finally:
            channel.listeners.discard(subscription)
            if not channel.listeners:
                self._drop_channel(name)

    async def _wait_for(self, event: asyncio.Event) -> None:
        """``NotReadyError`` when Redis has been silent for too long before the event came."""
        start = time.monotonic()
        while not event.is_set():
            left = max(start, self._last_message_at) + _CONNECT_S - time.monotonic()
            if left <= 0:
                raise NotReadyError("Redis does not answer")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await event.wait()

    def _drop_channel(self, name: bytes) -> None:
        del self._channels[name]
        if self._connection is not None:  # a lost connection forgets the channel by itself
            self._connection.unsubscribe(name)

    async def read(
        self, subscription: Subscription, after: EventId = BEFORE_ALL
    ) -> AsyncGenerator[Event, None]:
        """Every event of the job after ``after``, once and in order, up to the terminal one.

        Without the terminal one when ``after`` is beyond it: the job has ended, nothing will come.
        Raises ``JobNotFoundError`` when the job has no record, ``StorageLostError`` when it had
        one: Redis has lost its data. ``JobError`` when its log can never be read.
        """
        merger = EventMerger(after)
        is_behind = after != BEFORE_ALL
        while True:
            event = None if is_behind else await subscription.get()
            verdict = merger.judge(event) if event is not None else Verdict.GAP
            if verdict is Verdict.DROP:
                continue
            missed = (
                [event]
                if event and verdict is Verdict.TAKE
                else await self._catch_up(subscription, merger.last)
            )
            if missed is None:
                return
            is_behind = len(missed) == _PAGE_EVENTS
            subscription.is_known |= bool(missed)
            for found in missed:
                merger.take(found)
                yield found
                if found.is_terminal:
                    return

    async def replay(self, job_id: str, after: EventId = BEFORE_ALL) -> AsyncGenerator[Event, None]:
        """What the log holds after ``after``, then what comes live."""
        async with self.subscribe(job_id) as subscription:
            subscription.note_gap()  # the log first
            async for event in self.read(subscription, after):
                yield event

    async def _catch_up(self, subscription: Subscription, last: EventId) -> list[Event] | None:
        """What the log holds after ``last``; ``None`` when nothing can follow any more."""
        job_id = subscription.job_id
        try:
            events = await self._read_page(job_id, last)
            if not events and await self._has_ended(subscription):
                # It may have since the first look; its last event is in the log by now.
                events = await self._read_page(job_id, last)
                return events or None
        except RedisError as error:
            if not is_transient(error):
                raise JobError(f"the job's events cannot be read: {error}") from error
            log.warning("log unreadable, will retry", extra={"job": job_id, "error": str(error)})
            await asyncio.sleep(_RECONNECT_S)
            return []
        return events

    async def _read_page(self, job_id: str, last: EventId) -> list[Event]:
        return await within(_READ_S, read_log_async(self._redis, job_id, last, _PAGE_EVENTS))

    async def _has_ended(self, subscription: Subscription) -> bool:
        key = names.job_key(subscription.job_id)
        status = await within(_READ_S, self._redis.hget(key, "status"))
        if status is None:
            raise _missing(subscription)
        subscription.is_known = True
        return status.decode() in _ENDED

    async def _listen(self) -> None:
        while True:
            try:
                self._connection = await self._connect()
                await self._connection.wait_lost()
            except RedisError as error:
                self._connected.clear()
                log.warning("subscription lost, reconnecting", extra={"error": str(error)})
                await self._close()
                await asyncio.sleep(_RECONNECT_S)

    async def _connect(self) -> SubscriberConnection:
        """A fresh connection with every channel that somebody listens to.

        The bell of the desired models keeps it in pub/sub mode while nobody does.
        """
        connection = await SubscriberConnection.open(
            self._subscriber.connection_pool, self._on_message
        )
        connection.subscribe([_WAKEUP, *self._channels])
        self._connected.set()
        return connection

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(RedisError):
                await connection.close()

    def _on_message(self, message: list[Any]) -> None:
        self._last_message_at = time.monotonic()
        kind, name, data = message
        if name == _WAKEUP:
            self._num_wakeups += 1
        channel = self._channels.get(name)
        if channel is None:
            return
        if kind == b"message":
            for subscription in channel.listeners:
                self._deliver(subscription, data)
        elif kind == b"subscribe":
            channel.confirm()

    def _deliver(self, subscription: Subscription, line: bytes) -> None:
        try:
            subscription.put(decode_event(line))
        except ContractError:
            # Not ours to show; the log decides.
            subscription.note_gap()

    async def _check_silent_readers(self) -> None:
        """Send readers who have long heard nothing to the log, in turn when they are many."""
        while True:
            await asyncio.sleep(_TICK_S)
            now = time.monotonic()
            readers = [one for channel in self._channels.values() for one in channel.listeners]
            silent = [(one.silence_s(now), one) for one in readers]
            due = sorted((it for it in silent if it[0] >= _SILENT_S), key=_length, reverse=True)
            for _, subscription in due[: round(_MAX_LOOKS_PER_S * _TICK_S)]:
                subscription.note_gap()


def _length(silence: tuple[float, Subscription]) -> float:
    return silence[0]


def _missing(subscription: Subscription) -> JobError:
    if subscription.is_known:
        return StorageLostError("the job is gone: Redis has lost its data; send the request again")
    return JobNotFoundError(f"there is no job {subscription.job_id[:80]!r}", "job_id")
