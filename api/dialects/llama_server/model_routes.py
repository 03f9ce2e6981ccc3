"""llama-server's routes of several models: /models/load, /models/unload, /models/sse, /models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from sse_starlette import EventSourceResponse, ServerSentEvent

from api.admin.models.loading import Keeping, finish_unload, start_load, start_unload
from api.admin.models.pull_routes import start_pull
from api.admin.models.pull_schema import PullBody
from api.admin.models.removal import remove_model
from api.dialects.llama_server.schema import ModelNameBody
from api.execution.resolve import finder_of
from api.execution.services import Services, ServicesDep
from api.web.auth import ForManagers
from api.web.error_schema import ERRORS
from api.web.event_stream import EventStream
from jobs.catalog.catalog import ModelEntry, find_model, model_options
from jobs.catalog.names import model_id_of
from jobs.catalog.options import load_request_of
from jobs.contract.requests import LoadRequest
from jobs.settings import Settings
from jobs.storage.desired_models import LoadedModel

router = APIRouter(tags=["llama-server"], responses=ERRORS)
_LOOK_S = 0.5
# Of our states; ``parked`` is what llama-server calls sleeping.
_STATES = {"ready": "loaded", "starting": "loading", "stopping": "unloaded", "parked": "sleeping"}


@router.post("/models/load", dependencies=[ForManagers])
async def load_model(body: ModelNameBody, services: ServicesDep) -> dict[str, bool]:
    """Begin to load a model of the catalog under its own name; one that is loaded stays."""
    if (await finder_of(services)).find(body.model) is not None:
        return {"success": True}
    find = partial(_to_load, services.settings, body.model)
    entry, request, keeping = await services.runner.in_thread(find)
    await start_load(services, model_id_of(entry.name), request, keeping)
    return {"success": True}


def _to_load(settings: Settings, name: str) -> tuple[ModelEntry, LoadRequest, Keeping]:
    entry = find_model(settings, name, "model")
    options = model_options(settings, entry)
    keeping = Keeping(options.ttl_s or None, options.pinned, options.priority)
    return entry, load_request_of(settings, entry), keeping


@router.post("/models/unload", dependencies=[ForManagers])
async def unload_model(body: ModelNameBody, services: ServicesDep) -> dict[str, bool]:
    """Unload a model; answers when its process has ended."""
    desired = (await finder_of(services)).resolve(None, body.model)
    await finish_unload(services, await start_unload(services, desired.model_id))
    return {"success": True}


@router.post("/models", dependencies=[ForManagers])
async def download_model(body: ModelNameBody, services: ServicesDep) -> dict[str, bool]:
    """Begin to download a model of the hub."""
    await start_pull(services, PullBody(model=body.model))
    return {"success": True}


@router.delete("/models", dependencies=[ForManagers])
async def delete_model(
    services: ServicesDep, model: Annotated[str, Query(min_length=1)]
) -> dict[str, bool]:
    """Remove a model from the models folder."""
    remove = partial(remove_model, services.settings, services.desired_models.all, model)
    await services.runner.in_thread(remove)
    return {"success": True}


@router.get("/models/sse", response_class=EventStream)
async def follow_models(services: ServicesDep) -> EventSourceResponse:
    """The state of each model that is or was loaded, at first and whenever it changes."""
    return EventSourceResponse(_changes(services), sep="\n", ping=10)


async def _changes(services: Services) -> AsyncIterator[ServerSentEvent]:
    shown: dict[str, dict[str, Any]] = {}
    while True:
        loaded = await services.runner.in_thread(services.loaded_models)
        found = {model.desired.load.model_name: _status(model) for model in loaded}
        found |= {name: {"value": "unloaded"} for name in shown.keys() - found.keys()}
        for name, status in found.items():
            if shown.get(name) != status:
                event = {"model": name, "event": "model_status", "data": {"status": status}}
                yield ServerSentEvent(msgspec.json.encode(event).decode(), sep="\n")
        shown = found
        await asyncio.sleep(_LOOK_S)


def _status(model: LoadedModel) -> dict[str, Any]:
    status = {"value": _STATES.get(model.state, model.state)}
    fraction = model.status.load_fraction if model.status is not None else None
    return status if fraction is None else {**status, "progress": fraction}
