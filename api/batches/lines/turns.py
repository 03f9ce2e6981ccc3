"""When a line of a batch may become a job: the window of its model, and what it waits for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import msgspec
from redis.exceptions import RedisError

from api.batches.lines.answers import ON_HOLD, Postponed
from api.execution.resolve import finder_of
from api.execution.services import Services
from jobs.catalog.catalog import list_models
from jobs.contract.errors import ContractError, JobError
from jobs.contract.records import WorkerStatus, decode_record
from jobs.keys.caller import Caller
from jobs.storage import names

_DEFAULT_SLOTS = 4
_READ_AGAIN_S = 2.0
_EMBED_POLL_S = 0.1
_EMBED_WAIT_S = 10.0
_UNLOADED_POLL_S = 1.0
_EMBEDDINGS = "/v1/embeddings"

CallerOf = Callable[[], Caller]
"""Gives the caller of a batch as its key is now."""
Tell = Callable[[Postponed], None]
"""Gets what a line waits for."""


class _Model(msgspec.Struct):
    model: str | None = None


_model_decoder = msgspec.json.Decoder(_Model)


class Turns:
    """The turns of one batch's lines. ``num_sharing``: batches that share the model's window.

    ``hold`` says that somebody holds the model's batch queue, if so.
    """

    def __init__(
        self,
        services: Services,
        endpoint: str,
        model: str | None,
        caller_of: CallerOf,
        num_sharing: Callable[[], int],
    ) -> None:
        self._services = services
        self._caller_of = caller_of
        self._is_embedding = endpoint == _EMBEDDINGS
        self._model = model
        self._num_sharing = num_sharing
        self._slug = ""
        self._status: WorkerStatus | None = None
        self._read_at = float("-inf")
        self._known: set[str | None] = set()
        self.hold: Postponed | None = None

    def note(self, body: bytes) -> None:
        """A line had a job, so its model was there."""
        self._known.add(self._model_in(body))

    async def window(self, slug: str | None) -> int:
        """How many lines of this batch may be jobs at once; ``slug``: of their model."""
        self._slug = slug or self._slug
        if self._is_embedding:
            return 1
        await self._read_status()
        slots = self._status.slots if self._status and self._status.slots else _DEFAULT_SLOTS
        total = self._services.settings.batch_window or 2 * slots + 8
        return max(2, total // max(1, self._num_sharing()))

    async def wait(self, body: bytes, is_over: asyncio.Event, tell: Tell) -> None:
        """Until the next line may run, or the batch is over.

        A model that is not desired any more was unloaded by somebody: no line loads it again,
        until somebody else does.
        """
        model = self._model_in(body)
        while model in self._known and not is_over.is_set() and not await self._is_loaded(model):
            tell(Postponed("model_unloaded", f"{model or 'the model'!r} was unloaded"))
            await asyncio.sleep(_UNLOADED_POLL_S)
        if self._is_embedding:
            await self._wait_for_idle(is_over)

    async def missing_model(self, body: bytes) -> Postponed | None:
        """Why a line waits whose model is unknown; ``None`` if the key has none such on disk."""
        model = self._model_in(body)
        if model is None or not self._caller_of().may_use(model):
            return None
        entries = await self._services.runner.in_thread(list_models, self._services.settings)
        if model not in {entry.name for entry in entries}:
            return None
        return Postponed("model_not_loaded", f"{model!r} is on disk, and not loaded")

    def _model_in(self, body: bytes) -> str | None:
        try:
            return _model_decoder.decode(body).model
        except msgspec.DecodeError:
            return self._model

    async def _is_loaded(self, model: str | None) -> bool:
        try:
            finder = await finder_of(self._services)
            finder.resolve(None, model)
        except (RedisError, JobError):
            return False
        return True

    async def _read_status(self) -> None:
        if not self._slug or time.monotonic() - self._read_at < _READ_AGAIN_S:
            return
        self._read_at = time.monotonic()
        redis = self._services.redis
        with contextlib.suppress(RedisError, ContractError):
            data = await redis.get(names.status_key(self._slug))
            if data is not None:
                self._status = decode_record(WorkerStatus, data)
            is_held = await redis.hget(names.hold_key(self._slug), "batch") is not None
            message = "somebody holds the batch jobs of the model"
            self.hold = Postponed(ON_HOLD, message) if is_held else None

    async def _wait_for_idle(self, is_over: asyncio.Event) -> None:
        """Vectors of lines are computed while nobody generates; they do not wait for ever."""
        deadline = time.monotonic() + _EMBED_WAIT_S
        while self._slug and not is_over.is_set() and time.monotonic() < deadline:
            self._read_at = float("-inf")
            await self._read_status()
            if self._status is None or self._status.sequences == 0:
                return
            await asyncio.sleep(_EMBED_POLL_S)
