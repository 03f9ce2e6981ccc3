"""The application: routes, guards, error handlers, and what lives as long as the process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from api.body_limit import BodyLimit
from api.error_answers import handle_error
from api.errors import HANDLED
from api.routes import (
    adapters,
    completions,
    docs,
    embeddings,
    health,
    internal,
    jobs,
    management,
    messages,
    metrics,
    models,
    native,
    older,
    rerank,
    responses,
    text,
)
from api.security import HostGuard, KeyGuard
from api.services import Services
from api.sse import BODY_SEND
from jobs.settings import Settings

_ROUTERS = (
    completions,
    responses,
    messages,
    embeddings,
    rerank,
    text,
    models,
    internal,
    adapters,
    management,
    jobs,
    health,
    metrics,
    docs,
    native,
    older,
)


class _Api(FastAPI):
    """FastAPI, but its description has no 422: here a wrong request is a 400."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[BODY_SEND] = send
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            schema = super().openapi()
            for path in schema["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            for name in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(name, None)
        return super().openapi()


def create_app(settings: Settings) -> FastAPI:
    """The API for these settings. It answers ``/health`` even while Redis is away."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = Services.create(settings)
        app.state.services = services
        await services.start()
        yield
        await services.stop()

    app = _Api(
        title="mlx-gguf-server",
        description="Several MLX and GGUF language models behind one OpenAI-compatible API.",
        lifespan=lifespan,
        # FastAPI's own load scripts from a CDN: see routes/docs.py.
        docs_url=None,
        redoc_url=None,
        exception_handlers=dict.fromkeys(HANDLED, handle_error),
    )
    for module in _ROUTERS:
        app.include_router(module.router)
    docs.mount_assets(app)
    # The last added is the outermost.
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(KeyGuard, settings=settings)
    app.add_middleware(HostGuard, settings=settings)
    return app
