"""The feed: one reader per API process, only while someone listens; a snapshot, then deltas."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import msgspec
from redis.exceptions import RedisError

from api.live.reader import LiveReader
from api.live.schema import LiveState, difference, visible_to
from jobs import asyncio_tasks
from jobs.keys.caller import NOBODY, Caller
from jobs.platform.current import current_platform

_INTERVAL_S = 1.0
_READ_TIMEOUT_S = 3.0
_NUM_POINTS = 600
_MAX_BEHIND = 30  # frames that a listener has not taken; then it gets a snapshot

_Point = tuple[float, float, float, float | None, int, int, int, float | None]
"""Time, tokens/s decode and prefill, TTFT in ms, waiting, running, memory, share of cached."""


class LiveFeed:
    """Frames of server-sent events for each listener. Nothing is read while there is none."""

    def __init__(self, reader: LiveReader) -> None:
        self._reader = reader
        self._boot = secrets.token_hex(4)
        self._number = 0
        self._state: LiveState | None = None
        self._is_lost = False
        self._history: dict[str, deque[_Point]] = {}
        self._listeners: dict[asyncio.Queue[bytes | None], Caller] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def num_listeners(self) -> int:
        return len(self._listeners)

    async def follow(self, build: str, caller: Caller = NOBODY) -> AsyncIterator[bytes]:
        """Frames from now on: a snapshot first, and again for a listener that fell behind.

        They show what ``caller`` may see.
        """
        frames: asyncio.Queue[bytes | None] = asyncio.Queue(_MAX_BEHIND)
        self._listeners[frames] = caller
        try:
            if self._task is None or self._task.done():
                # What was read for earlier listeners is old.
                self._state, self._is_lost = None, False
                self._task = asyncio_tasks.keep_running(self._run, "live feed")
            if self._state is not None:
                yield self._snapshot(build, visible_to(caller, self._state))
            elif self._is_lost:
                yield self._lost()
            while True:
                frame = await frames.get()
                if frame is not None:
                    yield frame
                elif self._state is not None:  # the first reading, or this listener is behind
                    yield self._snapshot(build, visible_to(caller, self._state))
        finally:
            self._listeners.pop(frames, None)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        """Read once a second until nobody listens."""
        loop = asyncio.get_running_loop()
        while self._listeners:
            started = loop.time()
            await self._tick()
            await asyncio.sleep(max(0.0, started + _INTERVAL_S - loop.time()))

    async def _tick(self) -> None:
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S):
                state = await self._reader.read()
        except (RedisError, TimeoutError):
            if not self._is_lost:
                lost = self._lost()
                self._send(lambda caller: lost)
            self._state, self._is_lost = None, True  # a snapshot follows the next reading
            return
        before, self._state, self._is_lost = self._state, state, False
        self._note_points(state)
        if before is None:
            self._send(lambda caller: None)
        else:
            self._send(partial(self._delta, before, state))

    def _delta(self, before: LiveState, state: LiveState, caller: Caller) -> bytes:
        """What has changed for this caller; empty if nothing has."""
        changes = difference(visible_to(caller, before), visible_to(caller, state))
        return self._frame("delta", {"t": _now(), **changes}) if changes else b""

    def _send(self, frame_of: Callable[[Caller], bytes | None]) -> None:
        """To all listeners, made once per caller; ``None`` makes each send a snapshot."""
        made: dict[Caller, bytes | None] = {}
        for frames, caller in self._listeners.items():
            if caller not in made:
                made[caller] = frame_of(caller)
            frame = made[caller]
            if frame == b"":
                continue
            if frames.full():
                while not frames.empty():
                    frames.get_nowait()
                frames.put_nowait(None)
            else:
                frames.put_nowait(frame)

    def _note_points(self, state: LiveState) -> None:
        self._history = {
            slug: self._history.get(slug) or deque(maxlen=_NUM_POINTS) for slug in state.models
        }
        for slug, model in state.models.items():
            self._history[slug].append(
                (
                    _now(),
                    model.decode_rate,
                    model.prefill_rate,
                    model.ttft_ms,
                    state.queues[slug].waiting,
                    model.running,
                    model.memory_bytes,
                    model.cached_share,
                )
            )

    def _snapshot(self, build: str, state: LiveState) -> bytes:
        fields = {
            "build": build,
            "t": _now(),
            "memory_total_bytes": current_platform().memory_bytes(),
            **state.shown(),
            "history": {
                slug: list(points) for slug, points in self._history.items() if slug in state.models
            },
        }
        return self._frame("snapshot", fields)

    def _lost(self) -> bytes:
        return self._frame("lost", {"what": "redis"})

    def _frame(self, event: str, fields: dict[str, Any]) -> bytes:
        self._number += 1
        head = f"event: {event}\nid: {self._boot}-{self._number}\ndata: ".encode()
        return head + msgspec.json.encode(fields) + b"\n\n"


def _now() -> float:
    return round(time.time(), 2)
