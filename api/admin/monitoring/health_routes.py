"""/health: liveness of the process; /health/ready: readiness to serve requests."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from api.admin.models.schema import Health, Readiness
from api.execution.services import ServicesDep

router = APIRouter(prefix="/health", tags=["health"])
_NOT_READY: dict[int | str, dict[str, Any]] = {503: {"model": Readiness}}


@router.get("")
async def health() -> Health:
    """The API answers. For the models see /health/ready."""
    return Health()


@router.get("/ready", responses=_NOT_READY)
async def ready(services: ServicesDep, response: Response) -> Readiness:
    """503 with reasons unless Redis, a supervisor and the decode loops of the key's models work.

    Answers within a second, even if Redis does not.
    """
    reasons = await services.readiness.reasons(services.caller.may_use)
    if not reasons:
        return Readiness(status="ready", reasons=[])
    response.status_code = 503
    response.headers["Retry-After"] = "1"
    return Readiness(status="not_ready", reasons=reasons)
