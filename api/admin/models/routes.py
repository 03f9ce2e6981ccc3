"""/v1/internal/model: models on disk, load, unload, facts about a model."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.dialects.openai.generation.answer_schema import JobAccepted
from api.dialects.openai.generation.routes import ModelIdHeader
from api.dialects.generation_params import checked_text
from api.dialects.sampling_fields import OURS
from api.execution.resolve import finder_of, read_model_id, resolve_loaded
from api.execution.services import Services, ServicesDep
from api.execution.submissions import accepted, is_background
from api.admin.models.load_request import load_request_and_keeping, refuse_unknown_options
from api.admin.models.loading import (
    Keeping,
    finish_load,
    finish_unload,
    start_load,
    start_unload,
)
from api.admin.models.schema import LoadAnswer, LoadBody, ModelInfoAnswer, ModelNames, UnloadAnswer
from api.web.auth import ForManagers
from api.web.error_schema import ERRORS
from jobs.catalog.catalog import ModelEntry, find_model, list_models, model_options
from jobs.catalog.disk_facts import ModelFacts
from jobs.catalog.models_file import ModelOptions
from jobs.catalog.options import load_request_of
from jobs.contract.errors import UnsupportedParameterError
from jobs.contract.requests import GenerationDefaults, LoadRequest
from jobs.settings import Settings
from jobs.storage import names
from jobs.storage.desired_models import LoadedModel

router = APIRouter(prefix="/v1/internal", tags=["models"], responses=ERRORS)
_ACCEPTED: dict[int | str, dict[str, Any]] = {202: {"model": JobAccepted}}


@router.get("/model/list")
async def list_on_disk(services: ServicesDep) -> ModelNames:
    """Names of the models in the models folder, sorted."""
    catalog = await services.runner.in_thread(services.catalog)
    return ModelNames(model_names=[entry.name for entry in catalog.listed()])


@router.post(
    "/model/load",
    response_model=LoadAnswer,
    responses=_ACCEPTED,
    dependencies=[ForManagers],
)
async def load(
    body: LoadBody, request: Request, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> LoadAnswer | Response:
    """Load a model under a model_id; answers when it is ready. A disconnect does not stop the load."""
    refuse_unknown_options(body)
    model_id = read_model_id(x_model_id) or names.DEFAULT_MODEL_ID
    request_of = partial(load_request_and_keeping, services.settings, body)
    wanted, keeping = await services.runner.in_thread(request_of)
    job_id = await start_load(services, model_id, wanted, keeping)
    if is_background(request, body.background):
        return accepted(job_id)
    await finish_load(services, model_id, job_id)
    return LoadAnswer()


@router.post(
    "/model/unload",
    response_model=UnloadAnswer,
    responses=_ACCEPTED,
    dependencies=[ForManagers],
)
async def unload(
    request: Request, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> UnloadAnswer | Response:
    """Unload a model; answers when its process has ended."""
    model_id = read_model_id(x_model_id) or names.DEFAULT_MODEL_ID
    job_id = await start_unload(services, model_id)
    if is_background(request, None):
        return accepted(job_id)
    await finish_unload(services, job_id)
    return UnloadAnswer()


@router.get("/model/info")
async def loaded_info(services: ServicesDep, x_model_id: ModelIdHeader = None) -> ModelInfoAnswer:
    """Facts about the model loaded under a model_id."""
    desired = await resolve_loaded(services, x_model_id)
    return await _info(services, desired.load.model_name, desired.model_id)


@router.get("/model/info/{model_name}")
async def named_info(model_name: str, services: ServicesDep) -> ModelInfoAnswer:
    """Facts about a loaded model, by its id, name or alias, or about another on disk."""
    desired = (await finder_of(services)).find(model_name)
    if desired is not None:
        return await _info(services, desired.load.model_name, desired.model_id)
    return await _info(services, model_name, None)


async def _info(services: Services, name: str, model_id: str | None) -> ModelInfoAnswer:
    catalog = await services.runner.in_thread(services.catalog)
    entry = catalog.find(name, "llm_model_name")
    every = await services.runner.in_thread(services.loaded_models)
    loaded = [model for model in every if model.desired.load.model_name == entry.name]
    chosen = [model for model in loaded if model_id in (None, model.desired.model_id)]
    facts = await services.runner.in_thread(services.disk_facts.read, entry)
    return _info_answer(entry, loaded, chosen[0] if chosen else None, facts)


def _info_answer(
    entry: ModelEntry,
    loaded: list[LoadedModel],
    chosen: LoadedModel | None,
    on_disk: ModelFacts,
) -> ModelInfoAnswer:
    facts: dict[str, Any] = {
        "context_length": on_disk.context_length,
        "architecture": on_disk.architecture or None,
        "quantization": on_disk.quantization or None,
        "num_parameters": on_disk.num_parameters,
    }
    if chosen is not None and chosen.status is not None:
        status = chosen.status
        facts |= {
            "context_length": status.context_length or on_disk.context_length,
            "vocab_size": status.vocab_size or None,
            "architecture": status.architecture or facts["architecture"],
            "quantization": status.quantization or facts["quantization"],
            "num_parameters": status.num_parameters or facts["num_parameters"],
            "slots": status.slots or None,
            "load_fraction": status.load_fraction,
            "state": status.state.value,
        }
    model_id = chosen.desired.model_id if chosen else None
    adapter = chosen.desired.load.adapter if chosen else None
    return ModelInfoAnswer(
        model_name=entry.name,
        model_path=str(entry.path),
        model_type=entry.backend,
        file_size_bytes=entry.size_bytes,
        file_size_gb=entry.size_bytes >> 30,
        is_loaded=chosen is not None,
        model_id=model_id,
        loaded_model_id=model_id,
        loaded_model_ids=[model.desired.model_id for model in loaded],
        loader=entry.backend,
        lora_names=[adapter] if adapter else [],
        **facts,
    )
