"""GET /v1/live: models, queues and running jobs as server-sent events, once a second."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from sse_starlette import EventSourceResponse
from starlette.responses import Response

from api.execution.services import ServicesDep
from api.live.feed import LiveFeed
from api.page.files import read_page
from api.web.error_schema import ERRORS
from api.web.event_stream import EventStream
from api.web.sse import PING

router = APIRouter(tags=["jobs"], responses=ERRORS)
_PING_S = 10
_SEND_TIMEOUT_S = 30.0
_FRAMES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
}


@router.get("/v1/live", response_class=EventStream, responses=_FRAMES)
async def live(request: Request, services: ServicesDep) -> Response:
    """A snapshot of models, queues and the caller's jobs, then once a second what has changed."""
    feed: LiveFeed = request.app.state.live
    page = await services.runner.in_thread(read_page)
    return EventSourceResponse(
        feed.follow(page.build, services.caller),
        sep="\n",
        ping=_PING_S,
        ping_message_factory=lambda: PING,  # type: ignore[arg-type, return-value]
        send_timeout=_SEND_TIMEOUT_S,
    )
