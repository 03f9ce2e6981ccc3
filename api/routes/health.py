"""/health: the process is up; /health/ready: everything that it needs is there and moves."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from redis.exceptions import RedisError

from api.schemas.internal import Health, Readiness
from api.services import Services, ServicesDep
from jobs.records import WorkerState
from jobs.wants import LoadedModel

router = APIRouter(prefix="/health", tags=["health"])
_MAX_IDLE_S = 30.0
_NOT_READY: dict[int | str, dict[str, Any]] = {503: {"model": Readiness}}


@router.get("")
async def health() -> Health:
    """The API answers. It says nothing about models: see /health/ready."""
    return Health()


@router.get("/ready", responses=_NOT_READY)
async def ready(services: ServicesDep, response: Response) -> Readiness:
    """503 with reasons unless Redis, a supervisor and every loaded model's decode loop work."""
    reasons = await services.runner.in_thread(_reasons, services)
    if not reasons:
        return Readiness(status="ready", reasons=[])
    response.status_code = 503
    response.headers["Retry-After"] = "1"
    return Readiness(status="not_ready", reasons=reasons)


def _reasons(services: Services) -> list[str]:
    try:
        nodes, loaded = services.wants.nodes(), services.wants.loaded()
    except RedisError:
        return ["Redis cannot be reached"]
    reasons = [] if nodes else ["no supervisor is running"]
    return reasons + [reason for model in loaded if (reason := _reason(model))]


def _reason(model: LoadedModel) -> str | None:
    name, status = f"model_id {model.want.model_id!r}", model.status
    if status is None:
        return f"{name} has no worker"
    if status.state is not WorkerState.READY:
        return f"{name} is {status.state.value}"
    if status.idle_s >= _MAX_IDLE_S:
        return f"{name} has work but has not moved for {status.idle_s:.0f} s"
    return None
