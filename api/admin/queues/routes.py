"""/management/queues: show, hold, drain and resume the queues of models."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter

from api.admin.queues.schema import ClassesBody, HoldBody, QueueChange, QueueList
from api.admin.queues.view import list_queues, yield_running
from api.execution.resolve import finder_of
from api.execution.services import Services, ServicesDep
from api.web.auth import ForManagers
from api.web.error_schema import ERRORS
from jobs.contract.records import DesiredModel
from jobs.scheduling.holds import Holds
from jobs.storage import names

router = APIRouter(
    prefix="/management/queues", tags=["management"], responses=ERRORS, dependencies=[ForManagers]
)


@router.get("")
async def show_queues(services: ServicesDep) -> QueueList:
    """What waits and runs of each model, by class, and which classes are held."""
    models = list((await services.runner.desired_models()).values())
    return QueueList(data=await services.runner.in_thread(list_queues, services.store, models))


@router.post("/{model:path}/hold")
async def hold_queues(
    model: str, services: ServicesDep, body: HoldBody | None = None
) -> QueueChange:
    """Start no further jobs of the model; new ones wait. ``model``: model_id, name or alias."""
    return await _hold(services, model, "hold", body or HoldBody())


@router.post("/{model:path}/drain")
async def drain_queues(
    model: str, services: ServicesDep, body: HoldBody | None = None
) -> QueueChange:
    """Refuse new jobs of the model with 503; those that wait still run."""
    return await _hold(services, model, "drain", body or HoldBody())


@router.post("/{model:path}/resume")
async def resume_queues(
    model: str, services: ServicesDep, body: ClassesBody | None = None
) -> QueueChange:
    """Take and start jobs of the model again."""
    desired = await _find(services, model)
    return await services.runner.in_thread(_resume, services, desired, body or ClassesBody())


async def _hold(
    services: Services, model: str, state: Literal["hold", "drain"], body: HoldBody
) -> QueueChange:
    desired = await _find(services, model)
    return await services.runner.in_thread(_change, services, desired, state, body)


async def _find(services: Services, model: str) -> DesiredModel:
    finder = await finder_of(services)
    found = finder.find(model)
    if found is None:
        raise finder.not_loaded(model, "model")
    return found


def _change(
    services: Services, desired: DesiredModel, state: Literal["hold", "drain"], body: HoldBody
) -> QueueChange:
    store, slug = services.store, names.slug_of(desired.model_id)
    Holds(store.redis).hold(slug, state, body.chosen, services.caller.name)
    yielded = yield_running(store, slug, body.chosen) if body.yield_running else 0
    return QueueChange(data=list_queues(store, [desired]), yielded=yielded)


def _resume(services: Services, desired: DesiredModel, body: ClassesBody) -> QueueChange:
    slug = names.slug_of(desired.model_id)
    Holds(services.store.redis).resume(slug, body.chosen)
    return QueueChange(data=list_queues(services.store, [desired]))
