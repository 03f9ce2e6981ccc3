"""Answers one line of a batch by the route that it names, in this process.

The same code reads the body and makes the answer, so both are those of the route.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Scope

from api.dialects.anthropic.routes import router as messages_router
from api.dialects.error_answers import handle_error
from api.dialects.openai.embeddings.routes import router as embeddings_router
from api.dialects.openai.generation.routes import router as completions_router
from api.dialects.responses.routes import router as responses_router
from api.execution.services import Services
from api.web.errors import HANDLED
from api.web.sse import BODY_SEND

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RouteAnswer:
    """What a route has answered."""

    status: int
    body: bytes


def create_line_app(services: Services) -> FastAPI:
    """The routes that lines may name, without what only a network needs."""
    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        exception_handlers=dict.fromkeys(HANDLED, handle_error),
    )
    for router in (completions_router, responses_router, embeddings_router, messages_router):
        app.include_router(router)
    services.runner.job_class = "batch"  # which the answers name
    app.state.services = services
    return app


class _Exchange:
    """One request in memory."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._status = 0
        self._parts: list[bytes] = []

    async def receive(self) -> Message:
        body, self._body = self._body, None
        if body is None:
            await asyncio.Event().wait()  # nobody closes this connection
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif message["type"] == "http.response.body":
            self._parts.append(message.get("body", b""))

    @property
    def answer(self) -> RouteAnswer | None:
        return RouteAnswer(self._status, b"".join(self._parts)) if self._status else None


async def call_route(app: ASGIApp, path: str, body: bytes, state: dict[str, Any]) -> RouteAnswer:
    """POST ``body`` to a route of ``app``. ``state`` is that of the request."""
    exchange = _Exchange(body)
    try:
        await app(_scope(path, body, state, exchange), exchange.receive, exchange.send)
    except Exception:
        # Starlette has answered 500 and raises the error for a server's log.
        log.exception("a line of a batch has failed", extra={"path": path})
    if exchange.answer is None:
        raise RuntimeError(f"{path} has not answered")
    return exchange.answer


def _scope(path: str, body: bytes, state: dict[str, Any], exchange: _Exchange) -> Scope:
    headers = [
        (b"host", b"localhost"),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 0),
        "state": state,
        BODY_SEND: exchange.send,
    }
