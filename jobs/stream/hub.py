"""One subscription connection per API process, shared by all open streams.

Pub/sub is fast but may lose messages. A reader takes events from it, and reads the log after a gap,
after about a second of silence, and after a reconnection.
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

_PAGE_EVENTS = 256  # read from the log at once, to bound the memory of a slow reader
_SILENT_S = 1.0
_TICK_S = 0.25
_MAX_LOOKS_PER_S = 200  # for all readers together: 1000 silent readers must not block the loop
_WAKEUP = names.WAKEUP.encode()
_RECONNECT_S = 0.2
_READ_S = 5.0  # time-out of a log read; it is repeated on another connection
_CONNECT_S = 5.0  # without any message: a confirmation may queue behind other messages
_ENDED = frozenset(status.value for status in JobStatus if status.is_terminal)

log = logging.getLogger(__name__)


class EventHub:
    """Owns the subscription connection and creates subscriptions.

    ``subscriber`` opens the connection and must not retry by itself: the listening task replaces a
    lost connection.
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
        """Changes when the desired models change. ``None`` while there is no connection."""
        return self._num_wakeups if self._connected.is_set() else None

    async def start(self) -> None:
        """Start listening. Redis may become available later."""
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
        """A confirmed subscription: it receives everything published from now on.

        Raises ``NotReadyError`` when Redis does not answer for ``_CONNECT_S``.
        """
        await self._wait_for(self._connected)
        name = names.event_channel(job_id).encode()
        subscription = Subscription(job_id)
        channel = self._channels[name]
        is_first = not channel.listeners
        channel.listeners.add(subscription)
        try:
            # If the connection is lost now, the next one subscribes to this channel too.
            if is_first and self._connection is not None:
                self._connection.subscribe([name])
            await self._wait_for(channel.confirmed)
            yield subscription
        finally:
            channel.listeners.discard(subscription)
            if not channel.listeners:
                self._drop_channel(name)

    async def _wait_for(self, event: asyncio.Event) -> None:
        """Raise ``NotReadyError`` after ``_CONNECT_S`` without the event or any message."""
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
        if self._connection is not None:  # a lost connection has no subscriptions
            self._connection.unsubscribe(name)

    async def read(
        self, subscription: Subscription, after: EventId = BEFORE_ALL
    ) -> AsyncGenerator[Event, None]:
        """Yield each event of the job after ``after``, in order, up to the terminal one.

        Yields nothing if ``after`` is at or beyond the terminal event. Raises ``JobNotFoundError``
        when the job has no record, ``StorageLostError`` when its record has disappeared, and
        ``JobError`` when its log is unreadable.
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
        """Yield the logged events after ``after``, then the live ones."""
        async with self.subscribe(job_id) as subscription:
            subscription.note_gap()  # read the log first
            async for event in self.read(subscription, after):
                yield event

    async def _catch_up(self, subscription: Subscription, last: EventId) -> list[Event] | None:
        """The logged events after ``last``, ``None`` when the job has ended and has no more."""
        job_id = subscription.job_id
        try:
            events = await self._read_page(job_id, last)
            if not events and await self._has_ended(subscription):
                # It may have ended since the first read, so read once more.
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
        """A new connection, subscribed to every channel that has listeners.

        The subscription to wake-ups keeps it in pub/sub mode without listeners.
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
            # Unreadable: read the log instead.
            subscription.note_gap()

    async def _check_silent_readers(self) -> None:
        """Make silent readers read the log, the longest silent ones first."""
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
