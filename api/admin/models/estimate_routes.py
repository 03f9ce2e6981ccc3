"""/v1/internal/model/estimate: the memory that a model would need, without loading it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from api.admin.models.estimate_schema import Estimate, EstimateQuery
from api.admin.models.load_request import load_request
from api.admin.models.schema import LoadBody
from api.execution.services import Services, ServicesDep
from api.web.error_schema import ERRORS
from jobs.catalog.catalog import find_model
from jobs.memory.budget import read_budget
from jobs.memory.estimate import known_memory
from jobs.memory.ledger import MemoryLedger

router = APIRouter(prefix="/v1/internal", tags=["models"], responses=ERRORS)


@router.get("/model/estimate")
async def estimate(services: ServicesDep, query: Annotated[EstimateQuery, Query()]) -> Estimate:
    """What a model needs in memory with these load options, and whether it fits."""
    try:
        body = query.to_body()
    except ValidationError as error:
        found = [{**one, "loc": ("query", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(found) from error
    return await services.runner.in_thread(_estimate, services, body)


def _estimate(services: Services, body: LoadBody) -> Estimate:
    """Synchronous; the first call asks the engines' libraries for their devices."""
    settings = services.settings
    services.catalog().find(body.llm_model_name, "llm_model_name")  # one of the caller's
    load = load_request(settings, body)
    entry = find_model(settings, load.model_name)
    found = known_memory(entry, load, settings, MemoryLedger(settings.state_dir))
    limit, binding = _budget(services)
    return Estimate(
        model_name=entry.name,
        model_type=entry.backend,
        basis=found.basis,
        weights_bytes=found.weights_bytes,
        state_bytes=found.state_bytes,
        compute_bytes=found.compute_bytes,
        prompt_cache_bytes=found.cache_bytes,
        total_bytes=found.total_bytes,
        context_length=found.context_length,
        slots=found.num_slots,
        state_bytes_per_token=found.state_per_token,
        budget_bytes=limit,
        binding=binding,
        fits=None if limit is None else found.total_bytes <= limit,
    )


def _budget(services: Services) -> tuple[int | None, str]:
    """The largest budget of a machine with a supervisor, or this one's, and what sets it."""
    told = [node for node in services.desired_models.nodes() if node.budget_bytes is not None]
    if not told:
        own = read_budget(services.settings)
        return own.total_bytes, own.binding
    largest = max(told, key=lambda node: node.budget_bytes or 0)
    return largest.budget_bytes, largest.binding
