"""The application: routes, middleware, error handlers, and the services of the process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from api.admin.jobs.change_routes import router as job_changes_router
from api.admin.jobs.management_routes import router as management_router
from api.admin.jobs.routes import router as jobs_router
from api.admin.keys.usage_routes import router as usage_router
from api.admin.models.adapters_routes import router as adapters_router
from api.admin.models.estimate_routes import router as estimate_router
from api.admin.models.listing_routes import router as models_router
from api.admin.models.pull_routes import router as pull_router
from api.admin.models.residency_routes import router as residency_router
from api.admin.models.routes import router as internal_router
from api.admin.monitoring.docs_routes import mount_assets
from api.admin.monitoring.docs_routes import router as docs_router
from api.admin.monitoring.health_routes import router as health_router
from api.admin.monitoring.metrics_routes import router as metrics_router
from api.admin.queues.routes import router as queues_router
from api.batches.routes import router as batches_router
from api.dialects.anthropic.batches.routes import router as message_batches_router
from api.dialects.anthropic.routes import router as messages_router
from api.dialects.error_answers import handle_error
from api.dialects.legacy.routes import router as older_router
from api.dialects.llama_server.model_routes import router as native_models_router
from api.dialects.llama_server.routes import router as native_router
from api.dialects.ollama.model_routes import router as ollama_models_router
from api.dialects.ollama.pull_routes import router as ollama_pull_router
from api.dialects.ollama.routes import router as ollama_router
from api.dialects.openai.embeddings.routes import router as embeddings_router
from api.dialects.openai.generation.routes import router as completions_router
from api.dialects.openai.rerank.routes import router as rerank_router
from api.dialects.openai.text.routes import router as text_router
from api.dialects.responses.routes import router as responses_router
from api.execution.services import Services
from api.files.bodies import is_streamed
from api.files.routes import router as files_router
from api.files.upkeep import FilesUpkeep
from api.files.upload_routes import router as uploads_router
from api.idempotency.middleware import Idempotency
from api.live.feed import LiveFeed
from api.live.reader import LiveReader
from api.live.routes import router as live_router
from api.page.routes import router as page_router
from api.web.auth import HostGuard, KeyGuard
from api.web.body_limit import BodyLimit
from api.web.errors import HANDLED
from api.web.sse import BODY_SEND
from api.web.tolerance import Tolerance
from api.webhooks.routes import router as webhooks_router
from jobs.keys.key_ring import KeyRing
from jobs.settings import Settings

ROUTERS = (
    completions_router,
    responses_router,
    messages_router,
    message_batches_router,
    embeddings_router,
    rerank_router,
    text_router,
    batches_router,
    models_router,
    internal_router,
    residency_router,
    estimate_router,
    pull_router,
    adapters_router,
    management_router,
    queues_router,
    jobs_router,
    usage_router,
    job_changes_router,
    health_router,
    metrics_router,
    docs_router,
    native_router,
    native_models_router,
    ollama_router,
    ollama_models_router,
    ollama_pull_router,
    older_router,
    files_router,
    uploads_router,
    webhooks_router,
    live_router,
    page_router,
)

_RATES = [
    f"{name}-{of}" for name in ("Limit", "Remaining", "Reset") for of in ("Requests", "Tokens")
]
_SHOWN_HEADERS = (
    "Location",
    "Retry-After",
    "X-Job-Id",
    *(f"X-RateLimit-{what}" for what in _RATES),
    "RateLimit",
    "RateLimit-Policy",
    "X-Schema-Loosened",
    "Idempotency-Replayed",
)
"""Response headers that pages of other origins may read."""


class _Api(FastAPI):
    """FastAPI without 422 in its OpenAPI document: a wrong request is a 400 here."""

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
    """The API for these settings. It answers ``/health`` even while Redis cannot be reached."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = Services.create(settings)
        app.state.services = services
        app.state.live = live = LiveFeed(
            LiveReader(services.redis, services.store, KeyRing(settings).name_of)
        )
        await services.start()
        upkeep = FilesUpkeep(services.files)
        upkeep.start()
        yield
        upkeep.stop()
        await live.stop()
        await services.stop()

    app = _Api(
        title="mlx-gguf-server",
        description="Several MLX and GGUF language models behind one OpenAI-compatible API.",
        lifespan=lifespan,
        # FastAPI's own pages load scripts from a CDN: see api/admin/monitoring/docs_routes.py.
        docs_url=None,
        redoc_url=None,
        exception_handlers=dict.fromkeys(HANDLED, handle_error),
    )
    for router in ROUTERS:
        app.include_router(router)
    mount_assets(app)
    # The middleware added last is the outermost.
    app.add_middleware(Tolerance)
    app.add_middleware(Idempotency)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, is_streamed=is_streamed)
    app.add_middleware(KeyGuard, settings=settings)
    if settings.known_origins:
        # Before the key check: a browser's preflight request has no key.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.known_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=_SHOWN_HEADERS,
        )
    app.add_middleware(HostGuard, settings=settings)
    return app
