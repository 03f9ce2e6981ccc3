"""/v1/models: the loaded models as OpenAI's clients list them."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter

from api.resolve import find_by_model, listed_name
from api.schemas.errors import ERRORS
from api.schemas.internal import ModelEntry, ModelList
from api.services import Services, ServicesDep
from jobs.errors import ModelNotFoundError
from jobs.records import Want, WorkerState
from jobs.wants import LoadedModel

router = APIRouter(prefix="/v1/models", tags=["models"], responses=ERRORS)


@router.get("")
async def list_loaded(services: ServicesDep) -> ModelList:
    """The models that are loaded or loading."""
    return ModelList(data=await _entries(services))


@router.get("/{model:path}")
async def show_loaded(model: str, services: ServicesDep) -> ModelEntry:
    """One loaded model, by what addresses it: model_id or name."""
    wants = await services.runner.wants()
    want = find_by_model(wants, model)
    found = [e for e in await _entries(services) if want and e.model_id == want.model_id]
    if not found:
        raise ModelNotFoundError(f"no model {model[:80]!r} is loaded", "model")
    return found[0]


async def _entries(services: Services) -> list[ModelEntry]:
    loaded = await services.runner.in_thread(services.wants.loaded)
    wants = {model.slug: model.want for model in loaded}
    return [_entry(wants, model) for model in loaded]


def _entry(wants: Mapping[str, Want], model: LoadedModel) -> ModelEntry:
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


def state_of(model: LoadedModel) -> str:
    """The worker's own word, or that it is starting while it has not said any."""
    return (model.status.state if model.status else WorkerState.STARTING).value
