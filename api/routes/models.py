"""/v1/models as OpenAI's clients list them: what is loaded, and behind it what can be."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter

from api.resolve import find_by_model, listed_name
from api.schemas.errors import ERRORS
from api.schemas.internal import ModelEntry, ModelList
from api.services import Services, ServicesDep
from jobs import catalog
from jobs.disk_facts import DiskFactsReader
from jobs.errors import ModelNotFoundError
from jobs.records import Want, WorkerState
from jobs.wants import LoadedModel

router = APIRouter(tags=["models"], responses=ERRORS)
_UNLOADED = "unloaded"


@router.get("/models", include_in_schema=False)
@router.get("/v1/models")
async def list_all(services: ServicesDep) -> ModelList:
    """The models that are loaded or loading, then the other ones of the models folder."""
    return ModelList(data=await services.runner.in_thread(_entries, services))


@router.get("/v1/models/{model:path}")
async def show_one(model: str, services: ServicesDep) -> ModelEntry:
    """One model: a loaded one by what addresses it, model_id or name; another by its name."""
    want = find_by_model(await services.runner.wants(), model)
    entries = await services.runner.in_thread(_entries, services)
    for entry in entries:
        is_meant = entry.id == model if want is None else entry.model_id == want.model_id
        if is_meant:
            return entry
    raise ModelNotFoundError(f"there is no model {model[:80]!r}", "model")


def _entries(services: Services) -> list[ModelEntry]:
    """No two have one id: of a name that addresses a loaded model, only that one is listed."""
    loaded = services.wants.loaded()
    wants = {model.slug: model.want for model in loaded}
    entries = [_loaded_entry(wants, model) for model in loaded]
    for found in catalog.list_models(services.settings):
        if find_by_model(wants, found.name) is None:
            entries.append(_unloaded_entry(found, services.disk_facts))
    return entries


def _loaded_entry(wants: Mapping[str, Want], model: LoadedModel) -> ModelEntry:
    want, status = model.want, model.status
    return ModelEntry(
        id=listed_name(wants, want),
        created=int(want.created_at),
        model_id=want.model_id,
        model_name=want.load.model_name,
        backend=want.load.backend,
        context_length=(status.context_length if status else 0) or want.load.context_length,
        state=state_of(model),
    )


def _unloaded_entry(found: catalog.ModelEntry, reader: DiskFactsReader) -> ModelEntry:
    facts = reader.read(found)
    return ModelEntry(
        id=found.name,
        created=facts.modified_at,
        model_id=None,
        model_name=found.name,
        backend=found.backend,
        context_length=facts.context_length,
        state=_UNLOADED,
    )


def state_of(model: LoadedModel) -> str:
    """The worker's own word, or that it is starting while it has not said any."""
    return (model.status.state if model.status else WorkerState.STARTING).value
