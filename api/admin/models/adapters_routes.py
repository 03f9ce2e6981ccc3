"""/v1/internal/adapter: the LoRA adapters on disk."""

from __future__ import annotations

from fastapi import APIRouter

from api.execution.services import ServicesDep
from api.admin.models.adapters_schema import AdapterAnswer, AdapterList
from api.web.error_schema import ERRORS
from jobs.catalog.catalog import AdapterEntry, list_adapters
from jobs.contract.records import DesiredModel

router = APIRouter(prefix="/v1/internal/adapter", tags=["models"], responses=ERRORS)


@router.get("/list")
async def list_on_disk(services: ServicesDep) -> AdapterList:
    """The adapters folder, sorted by name, and which models were loaded with an adapter."""
    entries = await services.runner.in_thread(list_adapters, services.settings.adapters_dir)
    desired_models = list((await services.runner.desired_models()).values())
    return AdapterList(
        adapter_names=[entry.name for entry in entries],
        adapters=[_answer(entry, desired_models) for entry in entries],
    )


def _answer(entry: AdapterEntry, desired_models: list[DesiredModel]) -> AdapterAnswer:
    return AdapterAnswer(
        name=entry.name,
        model_type=entry.backend,
        file_size_bytes=entry.size_bytes,
        loaded_model_ids=[desired.model_id for desired in desired_models if desired.load.adapter == entry.name],
    )
