"""Sends the deliveries that are due. Several processes may run it.

A delivery is leased for an attempt; the lease of a process that died runs out, and another sends
the event again: at least once. An endpoint has a few attempts at a time, so that a slow one delays
only itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from functools import partial
from typing import Literal

from redis.exceptions import RedisError

from api.webhooks.transport import TIMEOUT_S, Answer, UnreachableError, post
from jobs import asyncio_tasks
from jobs.settings import Settings
from jobs.storage.connection import AsyncRedis
from jobs.webhooks.records import Attempt
from jobs.webhooks.schedule import next_delay_s
from jobs.webhooks.signing import signed_headers
from jobs.webhooks.store import DueBatch, DueDelivery, WebhookStore

_LEASE_S = TIMEOUT_S + 15.0
_MAX_AT_ONCE = 32
_MAX_PER_ENDPOINT = 4
_LOOK_S = 30.0  # a wake-up may be lost with the process that took it
_LISTEN_S = 8.0  # below the deadline of a command
_PAUSE_S = 1.0
_STOP_S = 1.0
_SETTLE_TRIES = 10
_GONE = 410

log = logging.getLogger(__name__)


async def run(redis: AsyncRedis, settings: Settings, stop: asyncio.Event) -> None:
    """Send until ``stop`` is set. Redis may be away meanwhile."""
    del settings  # nothing of it is needed so far
    await Sender(redis).run(stop)


class Sender:
    """The attempts of this process."""

    def __init__(self, redis: AsyncRedis, *, timeout_s: float = TIMEOUT_S) -> None:
        self._store = WebhookStore(redis)
        self._timeout_s = timeout_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._num_of: Counter[str] = Counter()
        self._wake = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Send until ``stop`` is set; attempts that run then get a second to end."""
        others = [
            asyncio_tasks.keep_running(self._listen, "webhook wake-ups"),
            asyncio_tasks.start(partial(self._wake_at, stop), "webhook stop"),
        ]
        try:
            while not stop.is_set():
                self._wake.clear()
                await self._wait(await self._start_due())
        finally:
            for task in others:
                task.cancel()
            await self._end_attempts()

    async def _listen(self) -> None:
        while True:
            try:
                await self._store.wait_for_event(_LISTEN_S)
            except RedisError:
                await asyncio.sleep(_PAUSE_S)
            self._wake.set()

    async def _wake_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _start_due(self) -> float:
        """Begin the attempts that are due; returns the seconds until the next look."""
        while len(self._tasks) < _MAX_AT_ONCE:
            busy = [hook for hook, num in self._num_of.items() if num >= _MAX_PER_ENDPOINT]
            # Those that have some attempts under way get what is left of theirs one by one.
            at_most = 1 if self._num_of else _MAX_PER_ENDPOINT
            try:
                found = await self._store.take(_LEASE_S, at_most, busy)
            except RedisError as error:
                log.warning("no deliveries can be taken", extra={"error": str(error)})
                return _PAUSE_S
            if not isinstance(found, DueBatch):
                return _LOOK_S if found is None else min(found, _LOOK_S)
            for delivery in found.deliveries:
                self._start(found, delivery)
        return _LOOK_S  # an attempt that ends wakes up

    def _start(self, batch: DueBatch, delivery: DueDelivery) -> None:
        name = f"delivery of {delivery.event_id}"
        task = asyncio_tasks.start(partial(self._deliver, batch, delivery), name)
        self._tasks.add(task)
        self._num_of[batch.endpoint_id] += 1
        task.add_done_callback(partial(self._on_end, batch.endpoint_id))

    def _on_end(self, endpoint_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._num_of[endpoint_id] -= 1
        if not self._num_of[endpoint_id]:
            del self._num_of[endpoint_id]
        self._wake.set()

    async def _deliver(self, batch: DueBatch, delivery: DueDelivery) -> None:
        started = time.monotonic()
        answer: Answer | None = None
        error: str | None = None
        try:
            answer = await self._post(batch, delivery)
        except UnreachableError as problem:
            error = str(problem)
        attempt = Attempt(
            at=int(batch.now),
            duration_ms=round((time.monotonic() - started) * 1000),
            status_code=answer.status if answer else None,
            error=error,
        )
        facts = {"endpoint": batch.endpoint_id, "event": delivery.event_id}
        log.debug("webhook attempt", extra={**facts, "attempt": repr(attempt)})
        await self._settle(batch, delivery, answer, attempt)

    async def _post(self, batch: DueBatch, delivery: DueDelivery) -> Answer:
        now = int(batch.now)
        headers = signed_headers(delivery.event_id, now, delivery.body, batch.secrets)
        return await post(
            batch.url,
            headers,
            delivery.body,
            is_private_allowed=batch.is_private_allowed,
            timeout_s=self._timeout_s,
        )

    async def _settle(
        self, batch: DueBatch, delivery: DueDelivery, answer: Answer | None, attempt: Attempt
    ) -> None:
        """Write the end of an attempt. If Redis stays away, the lease runs out."""
        outcome = _outcome(delivery, answer)
        for _ in range(_SETTLE_TRIES):
            try:
                await self._store.settle(batch, delivery.event_id, outcome, attempt)
                if answer is not None and answer.status == _GONE:
                    await self._store.disable(batch.endpoint_id, "the receiver answered 410 Gone")
                return
            except RedisError as error:
                log.warning("a delivery is not settled yet", extra={"error": str(error)})
                await asyncio.sleep(_PAUSE_S)

    async def _end_attempts(self) -> None:
        if self._tasks:
            _, running = await asyncio.wait(self._tasks, timeout=_STOP_S)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


def _outcome(
    delivery: DueDelivery, answer: Answer | None
) -> Literal["delivered", "failed"] | float:
    if answer is not None and answer.is_success:
        return "delivered"
    if answer is not None and answer.status == _GONE:
        return "failed"
    retry_after_s = answer.retry_after_s if answer else None
    delay_s = next_delay_s(delivery.attempts + 1, delivery.elapsed_s, retry_after_s)
    return "failed" if delay_s is None else delay_s
