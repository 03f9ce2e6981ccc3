"""Whether requests can be served, answered within a second.

The probe has its own client and threads: those of the requests may all be blocked by a Redis that
does not answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from jobs.contract.records import WorkerState
from jobs.storage.connection import connect
from jobs.storage.desired_models import DesiredModels, LoadedModel

_DEADLINE_S = 0.9
_TIMEOUT_S = 1.0  # after its deadline, a check occupies its thread up to this time
_NUM_THREADS = 4
_MAX_IDLE_S = 30.0
_SILENT = "Redis does not answer within a second"


class ReadinessProbe:
    """Checks Redis, the supervisors and the decode loops of all loaded models."""

    def __init__(self, url: str) -> None:
        self._redis = connect(url, retries=0, timeout_s=_TIMEOUT_S)
        self._desired_models = DesiredModels(self._redis)
        self._threads = ThreadPoolExecutor(_NUM_THREADS, "readiness")

    async def reasons(self, may_use: Callable[[str], bool] = lambda name: True) -> list[str]:
        """The reasons why requests cannot be served; empty if they can.

        Of the models, those are looked at by whose names ``may_use`` is true.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_DEADLINE_S):
                return await loop.run_in_executor(self._threads, self._check, may_use)
        except (TimeoutError, RedisTimeoutError):
            return [_SILENT]
        except RedisError:
            return ["Redis cannot be reached"]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._redis.close()

    def _check(self, may_use: Callable[[str], bool]) -> list[str]:
        nodes, loaded = self._desired_models.nodes(), self._desired_models.loaded()
        reasons = [] if nodes else ["no supervisor is running"]
        used = [model for model in loaded if may_use(model.desired.load.model_name)]
        return reasons + [reason for model in used if (reason := _reason(model))]


def _reason(model: LoadedModel) -> str | None:
    if model.desired.is_parked:
        return None  # the next request starts it
    name, status = f"model_id {model.desired.model_id!r}", model.status
    if status is None:
        return f"{name} has no worker"
    if status.state is not WorkerState.READY:
        return f"{name} is {status.state.value}"
    if status.idle_s >= _MAX_IDLE_S:
        return f"{name} has work, but its last step was {status.idle_s:.0f} s ago"
    return None
