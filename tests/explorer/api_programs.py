"""Programs of the API: each public method calls the product as its own callers do."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, Literal

from redis.exceptions import RedisError

from api.admin.models.loading import start_load, start_unload
from api.execution.runner import JobRunner
from jobs.batches.line_jobs import LineJobs
from jobs.contract.errors import JobError, JobNotFoundError, ModelDrainingError
from jobs.contract.records import JobClass
from jobs.keys.caller import NOBODY
from jobs.scheduling.holds import Holds
from jobs.storage.desired_models import DesiredModels
from tests.explorer.client import CallbackRedis
from tests.explorer.fixtures import AGE_S, Fixtures
from tests.explorer.state_fields import LOAD, SLUG


class ApiPrograms:
    """See ``Fixtures``."""

    def __init__(self, fixtures: Fixtures) -> None:
        self._fixtures = fixtures
        self._store = fixtures.store
        self._desired_models = DesiredModels(fixtures.api)
        self._holds = Holds(fixtures.api)

    def submit(self, job: str) -> str:
        """Submit a job."""
        try:
            self._store.submit(self._fixtures.submission(job))
        except ModelDrainingError:
            return "refused"
        except RedisError:
            return "failed"
        return "submitted"

    def submit_desired(self, job: str) -> str:
        """Submit a job in a world with loads and unloads, as ``JobRunner.submit_ticket`` does."""
        try:
            desired = self._desired_models.get(SLUG)
            if desired is None:
                return "not desired"
            self._store.submit(self._fixtures.submission(job))
            current = self._desired_models.get(SLUG)
            if current is None or current.uid != desired.uid:
                self._store.cancel(job, "the model was unloaded")
        except RedisError:
            return "failed"
        return "submitted"

    def cancel(self, job: str) -> str:
        """Cancel a job."""
        try:
            return self._store.cancel(job, "enough").status
        except JobNotFoundError:
            return "not found"
        except RedisError:
            return "failed"

    def hold(self, job_class: JobClass, state: Literal["hold", "drain"]) -> str:
        """Hold or drain a class."""
        try:
            self._holds.hold(SLUG, state, [job_class], "somebody")
        except RedisError:
            return "failed"
        return "held"

    def resume(self, job_class: JobClass) -> str:
        """Resume a class."""
        try:
            return str(self._holds.resume(SLUG, [job_class]))
        except RedisError:
            return "failed"

    def forget_line(self, job: str) -> str:
        """Delete the ended job of a line, if its worker has released it."""
        try:
            jobs = LineJobs(self._fixtures.api)
            jobs.forget([job])
            return "kept" if jobs.num_waiting else "gone"
        except RedisError:
            return "failed"

    def purge(self) -> str:
        """Purge all jobs."""
        try:
            return str(self._store.purge(SLUG, -AGE_S))
        except RedisError:
            return "failed"

    def load(self, index: int) -> str:
        """Load the model; ``index`` numbers the loads."""
        return self._run(start_load(self._services(), "0", LOAD))

    def unload(self, index: int) -> str:
        """Unload the model; ``index`` numbers the unloads."""
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
        runner: Any = JobRunner.__new__(JobRunner)
        runner.name, runner.caller_info, runner.job_class, runner.claim = "", NOBODY, None, None
        runner.in_thread, runner.submit = in_thread, submit
        redis = _AsyncRedis(self._fixtures.api)
        settings = self._fixtures.settings
        return SimpleNamespace(
            runner=runner, desired_models=desired_models, redis=redis, settings=settings
        )

    def _run(self, coroutine: Coroutine[Any, Any, str]) -> str:
        """Run a coroutine that never suspends."""
        try:
            coroutine.send(None)
        except StopIteration as end:
            return str(end.value)
        except JobError as error:
            return error.code
        except RedisError:
            return "failed"
        raise AssertionError("the coroutine has suspended")


class _AsyncRedis:
    """The methods of the asyncio client that loading and unloading use."""

    def __init__(self, redis: CallbackRedis) -> None:
        self._redis = redis

    async def get(self, key: str) -> Any:
        return self._redis.get(key)

    async def set(self, key: str, value: bytes, ex: int) -> Any:
        return self._redis.set(key, value, ex=ex)
