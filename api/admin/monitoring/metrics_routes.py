"""GET /metrics: Prometheus' text."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse, Response

from api.admin.monitoring.metrics import metrics_text, read_snapshot
from api.execution.services import Services, ServicesDep
from api.web.error_schema import ERRORS

router = APIRouter(tags=["health"], responses=ERRORS)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(services: ServicesDep) -> Response:
    """Queues, jobs, tokens, times and workers, for Prometheus."""
    text = await services.runner.in_thread(_read, services)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _read(services: Services) -> bytes:
    return metrics_text(read_snapshot(services))
