"""Makes models desired that requests name and that lie on disk.

Such a model is added as a parked one: the job that asks for it starts it. A client that leaves
before that takes its demand along.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable

from api.execution.services import Services
from api.execution.submissions import new_job_id
from jobs.catalog.catalog import ModelEntry, find_model
from jobs.catalog.fingerprint import fingerprint
from jobs.contract.errors import ModelConflictError, ModelNotFoundError, NotReadyError
from jobs.contract.records import DesiredModel
from jobs.contract.requests import LoadRequest
from jobs.settings import Settings
from jobs.storage import names
from jobs.storage.load_failures import check_load_failure

_TRIES = 20


async def add_from_disk(services: Services, wanted: Iterable[str]) -> DesiredModel | None:
    """The desired model of the first of these names that is one on disk; ``None`` without one.

    Raises the error of its last load while no other try is due.
    """
    for name in wanted:
        try:
            entry = await services.runner.in_thread(find_model, services.settings, name)
        except ModelNotFoundError:
            continue
        return await _add(services, entry)
    return None


async def _add(services: Services, entry: ModelEntry) -> DesiredModel:
    desired = await services.runner.in_thread(_new_desired, services.settings, entry)
    slug = names.slug_of(desired.model_id)
    print_of = await services.runner.in_thread(fingerprint, entry)
    await check_load_failure(services.redis, slug, print_of)
    for _ in range(_TRIES):
        if await services.runner.in_thread(services.desired_models.put, slug, desired):
            return desired
        existing = await services.runner.in_thread(services.desired_models.get, slug)
        if existing is not None:  # another request was first
            return _same_model(existing, entry)
    raise NotReadyError(f"model_id {desired.model_id!r} keeps changing")


def _new_desired(settings: Settings, entry: ModelEntry) -> DesiredModel:
    load = LoadRequest(model_name=entry.name, backend=entry.backend)
    return DesiredModel(
        model_id=model_id_of(entry.name),
        uid=secrets.token_hex(8),
        load=load,
        load_job=new_job_id(load),
        created_at=time.time(),
        is_parked=True,
        origin="auto",
        ttl_s=settings.ttl_s or None,
    )


def _same_model(existing: DesiredModel, entry: ModelEntry) -> DesiredModel:
    if existing.load.model_name != entry.name:
        raise ModelConflictError(
            f"{entry.name!r} is not loaded, and its name is the model_id of"
            f" {existing.load.model_name!r}: load it under another model_id",
            "model",
        )
    return existing


def model_id_of(name: str) -> str:
    """The model_id of a model that a request loads: its name, with a hash when it is too long."""
    if len(name) <= 64:
        return name
    return f"{name[:50]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
