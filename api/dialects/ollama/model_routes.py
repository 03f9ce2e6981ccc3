"""ollama's routes about models and the server: /api/tags, /api/show, /api/ps, /api/version, /."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.routing import Match
from starlette.types import Scope

from api.dialects.ollama.answer_schema import (
    OLLAMA_ERRORS,
    OllamaModels,
    OllamaProcesses,
    OllamaShown,
    OllamaVersion,
)
from api.dialects.ollama.facts import list_processes, list_tags, show_model
from api.dialects.ollama.schema import OllamaNameBody
from api.execution.services import ServicesDep

router = APIRouter(tags=["ollama"], responses=OLLAMA_ERRORS)
_VERSION = "0.33.0"
_GREETING = "Ollama is running"


@router.get("/api/tags")
async def tags(services: ServicesDep) -> OllamaModels:
    """The models that a request may name."""
    return OllamaModels(models=await services.runner.in_thread(list_tags, services))


@router.get("/api/ps")
async def processes(services: ServicesDep) -> OllamaProcesses:
    """The models in memory."""
    return OllamaProcesses(models=await services.runner.in_thread(list_processes, services))


@router.post("/api/show")
async def show(body: OllamaNameBody, services: ServicesDep) -> OllamaShown:
    """What is known of a model."""
    return await services.runner.in_thread(show_model, services, body.model)


@router.get("/api/version")
async def version() -> OllamaVersion:
    """The version of ollama whose API this is."""
    return OllamaVersion(version=_VERSION)


class _ForPrograms(APIRoute):
    """A route that browsers, which ask for HTML, do not find."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if "text/html" in Headers(scope=scope).get("accept", ""):
            return Match.NONE, {}
        return super().matches(scope)


async def greeting() -> PlainTextResponse:
    """What ollama's clients look for before they begin."""
    return PlainTextResponse(_GREETING)


router.add_api_route("/", greeting, include_in_schema=False, route_class_override=_ForPrograms)
