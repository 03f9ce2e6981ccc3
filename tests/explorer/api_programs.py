"""What the API does for its clients: each function here is a program, called as by its caller."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

from redis.exceptions import RedisError

from api.admin.models.loading import start_load, start_unload
from jobs.contract.errors import JobError, JobNotFoundError
from jobs.storage.desired_models import DesiredModels
from tests.explorer.client import AskingRedis
from tests.explorer.parts import AGE_S, Parts
from tests.explorer.sights import LOAD, SLUG


class ApiPrograms:
    """See ``Parts``."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._store = parts.store
        self._desired_models = DesiredModels(parts.api)

    def submit(self, job: str) -> str:
        """A client's request becomes a job."""
        try:
            self._store.submit(self._parts.submission(job))
        except RedisError:
            return "failed"
        return "submitted"

    def submit_desired(self, job: str) -> str:
        """The same where models come and go, as ``JobRunner.submit_ticket`` does it."""
        try:
            desired = self._desired_models.get(SLUG)
            if desired is None:
                return "not wanted"
            self._store.submit(self._parts.submission(job))
            stands = self._desired_models.get(SLUG)
            if stands is None or stands.uid != desired.uid:
                self._store.cancel(job, "the model was unloaded")
        except RedisError:
            return "failed"
        return "submitted"

    def cancel(self, job: str) -> str:
        """A client wants a job ended."""
        try:
            return self._store.cancel(job, "enough").status
        except JobNotFoundError:
            return "gone"
        except RedisError:
            return "failed"

    def purge(self) -> str:
        """Somebody wants all jobs ended."""
        try:
            return str(self._store.purge(SLUG, -AGE_S))
        except RedisError:
            return "failed"

    def load(self, place: int) -> str:
        """Somebody wants the model loaded, for the ``place``-th time."""
        return self._run(start_load(self._services(), "0", LOAD))

    def unload(self, place: int) -> str:
        """Somebody wants it unloaded."""
        return self._run(start_unload(self._services(), "0"))

    def _services(self) -> Any:
        async def in_thread(call: Callable[..., Any], *args: Any) -> Any:
            return call(*args)

        async def submit(submission: Any) -> None:
            self._store.submit(submission)

        desired_models = SimpleNamespace(
            put=self._desired_models.put,
            get=self._desired_models.get,
            remove=self._desired_models.remove,
            nodes=lambda: ["a node"],
        )
        runner = SimpleNamespace(in_thread=in_thread, submit=submit, name="")
        redis = _Awaited(self._parts.api)
        settings = self._parts.settings
        return SimpleNamespace(
            runner=runner, desired_models=desired_models, redis=redis, settings=settings
        )

    def _run(self, coroutine: Coroutine[Any, Any, str]) -> str:
        """Drive to its end what never waits."""
        try:
            coroutine.send(None)
        except StopIteration as end:
            return str(end.value)
        except JobError as error:
            return error.code
        except RedisError:
            return "failed"
        raise AssertionError("it waits")


class _Awaited:
    """A client of asyncio, as far as loading and unloading use one themselves."""

    def __init__(self, redis: AskingRedis) -> None:
        self._redis = redis

    async def get(self, key: str) -> Any:
        return self._redis.get(key)

    async def set(self, key: str, value: bytes, ex: int) -> Any:
        return self._redis.set(key, value, ex=ex)
