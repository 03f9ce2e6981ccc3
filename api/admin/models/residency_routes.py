"""PATCH /v1/internal/model: whether a loaded model is pinned or parked, and for how long it stays."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from api.dialects.openai.generation.routes import ModelIdHeader
from api.execution.resolve import resolve_loaded
from api.execution.services import Services, ServicesDep
from api.web.auth import ForManagers
from api.web.base_schema import Body, Flag, integer, number
from api.web.error_schema import ERRORS
from jobs.contract.errors import (
    InvalidRequestError,
    ModelBusyError,
    ModelUnloadedError,
    NotReadyError,
)
from jobs.contract.records import DesiredModel
from jobs.storage import names
from jobs.storage.fence import OwnershipLostError
from jobs.storage.residency.parking import Parking

router = APIRouter(
    prefix="/v1/internal", tags=["models"], responses=ERRORS, dependencies=[ForManagers]
)
_MAX_TTL_S = 10 * 365 * 86400


class ResidencyBody(Body):
    """What changes; what is missing stays as it is. ``ttl``: ``null`` for no time to live.

    ``parked``: ``true`` ends the process of an idle model, ``false`` starts that of a parked one.
    """

    pinned: Flag | None = None
    parked: Flag | None = None
    ttl: Annotated[float, number(0, _MAX_TTL_S)] | None = None
    priority: Annotated[int, integer(-100, 100)] | None = None

    def fields(self) -> dict[str, Any]:
        """The fields of ``DesiredModel`` that change, but ``is_parked``."""
        given = self.model_dump(include=self.model_fields_set & {"pinned", "priority"})
        found = {name: value for name, value in given.items() if value is not None}
        if "ttl" in self.model_fields_set:
            found["ttl_s"] = self.ttl
        return found


class ResidencyAnswer(BaseModel):
    """The model as it is now."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    model_name: str
    pinned: bool
    parked: bool
    ttl: float | None
    priority: int


@router.patch("/model")
async def change_model(
    body: ResidencyBody, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> ResidencyAnswer:
    """Pin or park the model that is loaded under a model_id, or start a parked one again."""
    desired = await resolve_loaded(services, x_model_id)
    if not body.fields() and body.parked is None:
        raise InvalidRequestError("give one of pinned, parked, ttl, priority", "pinned")
    changed = await services.runner.in_thread(_change, services, desired, body)
    return ResidencyAnswer(
        model_id=changed.model_id,
        model_name=changed.load.model_name,
        pinned=changed.pinned,
        parked=changed.is_parked,
        ttl=changed.ttl_s,
        priority=changed.priority,
    )


def _change(services: Services, desired: DesiredModel, body: ResidencyBody) -> DesiredModel:
    fields = body.fields()
    if body.parked is False:
        fields["is_parked"] = False  # the supervisor starts it
    if fields:
        slug = names.slug_of(desired.model_id)
        changed = services.desired_models.change(slug, desired.uid, **fields)
        if changed is None:
            raise ModelUnloadedError(f"model_id {desired.model_id!r} was unloaded meanwhile")
        desired = changed
    return _park(services, desired) if body.parked and not desired.is_parked else desired


def _park(services: Services, desired: DesiredModel) -> DesiredModel:
    """In the step in which supervisors do it, so that no job is interrupted or lost."""
    slug = names.slug_of(desired.model_id)
    owner = services.store.redis.get(names.owner_key(slug))
    status = services.desired_models.statuses([slug]).get(slug)
    if owner is None or status is None:
        raise NotReadyError("the model has no process yet")
    try:
        parked = Parking(services.store).park(slug, desired.uid, status.names, owner.decode())
    except OwnershipLostError:
        raise NotReadyError("another machine takes the model over") from None
    if parked is None:
        raise ModelBusyError("jobs of the model wait or run, so it is not parked")
    services.desired_models.notify()
    return parked
