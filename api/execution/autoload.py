"""Makes models desired that requests name and that lie on disk.

Such a model is added as a parked one: the job that asks for it starts it. A client that leaves
before that takes its demand along.
"""

from __future__ import annotations

from collections.abc import Iterable

from api.execution.services import Services
from jobs.catalog.catalog import ModelEntry
from jobs.catalog.desired import desired_model_of
from jobs.catalog.fingerprint import fingerprint
from jobs.catalog.names import AmbiguousModelError
from jobs.contract.errors import ModelConflictError, ModelNotFoundError, NotReadyError
from jobs.contract.records import DesiredModel
from jobs.settings import Settings
from jobs.storage import names
from jobs.storage.residency.load_failures import check_load_failure

_TRIES = 20


async def add_from_disk(
    services: Services, wanted: Iterable[str], *, is_id: bool = False
) -> DesiredModel | None:
    """The desired model of the first of these names that is one on disk; ``None`` without one.

    With ``is_id`` a name is a model_id, which only a model's own name gives. Raises the error of
    its last load while no other try is due, and ``AmbiguousModelError``.
    """
    catalog = await services.runner.in_thread(services.catalog)
    ambiguous: AmbiguousModelError | None = None
    for name in wanted:
        try:
            entry = catalog.of_model_id(name) if is_id else catalog.find(name, "model")
        except AmbiguousModelError as error:
            ambiguous = ambiguous or error
        except ModelNotFoundError:
            continue
        else:
            if entry is not None:
                loaded = None if is_id else await _loaded_by_name(services, entry)
                return loaded or await _add(services, entry)
    if ambiguous is not None:
        raise ambiguous
    return None


async def _loaded_by_name(services: Services, entry: ModelEntry) -> DesiredModel | None:
    """The model, if it is loaded already under another id than the one of its name."""
    every = (await services.runner.desired_models()).values()
    return next((one for one in every if one.load.model_name == entry.name), None)


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
    ttl_s = settings.ttl_s
    return desired_model_of(settings, entry, origin="auto", is_parked=True, default_ttl_s=ttl_s)


def _same_model(existing: DesiredModel, entry: ModelEntry) -> DesiredModel:
    if existing.load.model_name != entry.name:
        raise ModelConflictError(
            f"{entry.name!r} is not loaded, and its name is the model_id of"
            f" {existing.load.model_name!r}: load it under another model_id",
            "model",
        )
    return existing
