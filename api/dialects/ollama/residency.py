"""Requests without a prompt: the model is loaded, or with ``keep_alive`` 0 unloaded."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import msgspec
from fastapi import Request
from starlette.responses import Response

from api.admin.models.loading import finish_unload, start_unload
from api.dialects.ollama.answers import Answer
from api.dialects.ollama.schema import OllamaBody, OllamaEmbedBody
from api.execution.job_responses import WholeAnswer
from api.execution.resolve import finder_of, resolve
from api.execution.services import Services
from api.execution.shapes import Shape
from api.execution.submissions import new_ticket
from api.web.auth import require_management
from jobs.catalog.catalog import find_model
from jobs.contract.events import Event
from jobs.contract.records import DesiredModel
from jobs.contract.requests import Prompt, TokenCountRequest


async def change_residency(
    shape: Shape, body: OllamaBody, request: Request, services: Services, header: str | None
) -> Response:
    """Load or unload, and answer when that is done. ``shape``: of which route."""
    if body.keep_alive_s == 0:
        await require_management(request)
        return Response(
            _ended(shape, await _unload(services, header, body.model), "unload"),
            media_type="application/json",
        )
    desired = await resolve(services, header, body.model)
    name = body.model or desired.load.model_name
    return load(services, desired, body, lambda _: _ended(shape, name, "load"))


def load(
    services: Services,
    desired: DesiredModel,
    body: OllamaBody | OllamaEmbedBody,
    assemble: Callable[[list[Event]], bytes],
) -> Response:
    """Wait until the model is ready, by the end of a job that does nothing else."""
    job = TokenCountRequest(Prompt(text=" "))
    ticket = new_ticket(services.runner, desired, job, keep_alive_s=body.keep_alive_s)
    return WholeAnswer(services.runner, ticket, services.settings.answer_timeout_s, assemble)


async def _unload(services: Services, header: str | None, model: str | None) -> str:
    """Its name. A model that is not loaded is unloaded already; ``ModelNotFoundError`` for none."""
    finder = await finder_of(services)
    if not header and model and finder.find(model) is None:
        find = partial(find_model, services.settings, model, "model")
        return (await services.runner.in_thread(find)).name
    desired = finder.resolve(header, model)
    await finish_unload(services, await start_unload(services, desired.model_id))
    return model or desired.load.model_name


def _ended(shape: Shape, model: str, reason: str) -> bytes:
    return msgspec.json.encode(Answer(shape, model).ended(time.time(), reason))
