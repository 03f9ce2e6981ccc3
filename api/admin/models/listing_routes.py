"""/v1/models in OpenAI's format: the loaded models, then the others in the models folder."""

from __future__ import annotations

from fastapi import APIRouter

from api.execution.resolve import ModelFinder, finder_of
from api.execution.services import Services, ServicesDep
from api.admin.models.schema import ModelEntry, ModelList
from api.web.error_schema import ERRORS
from jobs.catalog import catalog
from jobs.catalog.disk_facts import DiskFactsReader
from jobs.contract.errors import ModelNotFoundError
from jobs.storage import names
from jobs.storage.desired_models import LoadedModel

router = APIRouter(tags=["models"], responses=ERRORS)
_UNLOADED = "unloaded"


@router.get("/models", include_in_schema=False)
@router.get("/v1/models")
async def list_all(services: ServicesDep) -> ModelList:
    """The models that are loaded or loading, their aliases, then the rest of the models folder."""
    return ModelList(data=await services.runner.in_thread(list_entries, services))


@router.get("/v1/models/{model:path}")
async def show_one(model: str, services: ServicesDep) -> ModelEntry:
    """One model: a loaded one by its id, name or alias, any other by its name."""
    desired = (await finder_of(services)).find(model)
    for entry in await services.runner.in_thread(list_entries, services):
        if entry.id == model:
            return entry
        if desired is not None and entry.model_id == desired.model_id:
            is_its_own = model in (desired.model_id, desired.load.model_name)
            return entry if is_its_own else entry.model_copy(update={"id": model})
    raise ModelNotFoundError(f"there is no model {model[:80]!r}", "model")


def list_entries(services: Services) -> list[ModelEntry]:
    """Each id occurs once: a name that selects a loaded model is listed for that model only."""
    loaded = {model.slug: model for model in services.desired_models.loaded()}
    desired_models = {slug: model.desired for slug, model in loaded.items()}
    finder = ModelFinder.of(services.settings, desired_models)
    entries = [_loaded_entry(finder.listed_name(model.desired), model) for model in loaded.values()]
    for alias, desired in finder.listed_aliases():
        entries.append(_loaded_entry(alias, loaded[names.slug_of(desired.model_id)]))
    for found in catalog.list_models(services.settings):
        if finder.find_exact(found.name) is None:
            entries.append(_unloaded_entry(found, services.disk_facts))
    return entries


def _loaded_entry(name: str, model: LoadedModel) -> ModelEntry:
    desired, status = model.desired, model.status
    return ModelEntry(
        id=name,
        created=int(desired.created_at),
        model_id=desired.model_id,
        model_name=desired.load.model_name,
        backend=desired.load.backend,
        context_length=(status.context_length if status else 0) or desired.load.context_length,
        state=model.state,
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
