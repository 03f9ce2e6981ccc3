"""/v1/models in OpenAI's format: the loaded models, then the others on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter

from api.admin.models.schema import ModelEntry, ModelList, ModelStatus
from api.execution.resolve import ModelFinder
from api.execution.services import Services, ServicesDep
from api.web.error_schema import ERRORS
from jobs.catalog import catalog
from jobs.catalog.disk_facts import ModelFacts
from jobs.contract.records import WorkerState, WorkerStatus
from jobs.storage import names
from jobs.storage.desired_models import LoadedModel

router = APIRouter(tags=["models"], responses=ERRORS)
_UNLOADED = "unloaded"
_STATUS_VALUES: dict[str, str] = {
    WorkerState.STARTING: "loading",
    WorkerState.LOADING: "loading",
    WorkerState.READY: "loaded",
}
"""llama-server's words; all other states are ``unloaded`` there."""


@router.get("/models", include_in_schema=False)
@router.get("/v1/models")
async def list_all(services: ServicesDep) -> ModelList:
    """The models that are loaded or loading, their aliases, then the others on disk."""
    return ModelList(data=await services.runner.in_thread(list_entries, services))


@router.get("/v1/models/{model:path}")
async def show_one(model: str, services: ServicesDep) -> ModelEntry:
    """One model: a loaded one by its id, name or alias, any other by a name that finds it."""
    return await services.runner.in_thread(show_entry, services, model)


def list_entries(services: Services) -> list[ModelEntry]:
    """Each id occurs once: a name that selects a loaded model is listed for that model only."""
    listing = _Listing.read(services)
    return [*listing.loaded_entries(), *listing.unloaded_entries()]


def show_entry(services: Services, model: str) -> ModelEntry:
    """A loaded model by its id, name or alias, or one on disk; ``ModelNotFoundError``."""
    listing = _Listing.read(services)
    desired = listing.finder.find(model)
    if desired is not None:
        loaded = listing.loaded[names.slug_of(desired.model_id)]
        is_its_own = model in (desired.model_id, desired.load.model_name)
        return listing.loaded_entry(
            listing.finder.listed_name(desired) if is_its_own else model, loaded
        )
    entry = listing.catalog.find(model, "model")
    return _unloaded_entry(model, entry, services.disk_facts.read(entry))


@dataclass(frozen=True, slots=True)
class _Listing:
    """The catalog and the loaded models, by slug, at one moment."""

    services: Services
    catalog: catalog.Catalog
    loaded: dict[str, LoadedModel]
    finder: ModelFinder

    @classmethod
    def read(cls, services: Services) -> _Listing:
        found = services.catalog()
        loaded = {model.slug: model for model in services.loaded_models()}
        desired_models = {slug: model.desired for slug, model in loaded.items()}
        finder = ModelFinder.of(services.settings, desired_models)
        return cls(services, found, loaded, finder)

    def loaded_entries(self) -> list[ModelEntry]:
        """The loaded models, then their aliases."""
        shown = [(self.finder.listed_name(one.desired), one) for one in self.loaded.values()]
        aliases = self.finder.listed_aliases()
        shown += [(alias, self.loaded[names.slug_of(one.model_id)]) for alias, one in aliases]
        return [self.loaded_entry(name, model) for name, model in shown if self._is_shown(model)]

    def unloaded_entries(self) -> list[ModelEntry]:
        """The models on disk whose names select no loaded model."""
        others = [e for e in self.catalog.listed() if self.finder.find_exact(e.name) is None]
        facts = self.services.disk_facts.read_all(others)
        return [
            _unloaded_entry(entry.name, entry, one)
            for entry, one in zip(others, facts, strict=True)
        ]

    def loaded_entry(self, name: str, model: LoadedModel) -> ModelEntry:
        """A loaded model under one of its names."""
        desired, status = model.desired, model.status
        entry = self.catalog.named(desired.load.model_name)
        fields = _facts(entry, self.services.disk_facts.read(entry)) if entry else {}
        return ModelEntry(
            **fields
            | _known_by_worker(status)
            | {
                "id": name,
                "created": int(desired.created_at),
                "model_id": desired.model_id,
                "model_name": desired.load.model_name,
                "backend": desired.load.backend,
                "context_length": (status.context_length if status else 0)
                or desired.load.context_length,
                "state": model.state,
                "status": _status(model),
                "pinned": desired.pinned,
                "expires_at": model.expires_at,
            }
        )

    def _is_shown(self, model: LoadedModel) -> bool:
        entry = self.catalog.named(model.desired.load.model_name)
        return entry is None or not self.catalog.options_of(entry).unlisted


def _unloaded_entry(name: str, entry: catalog.ModelEntry, facts: ModelFacts) -> ModelEntry:
    return ModelEntry(
        id=name,
        created=facts.modified_at,
        model_id=None,
        model_name=entry.name,
        backend=entry.backend,
        context_length=facts.context_length,
        state=_UNLOADED,
        status=ModelStatus(),
        **_facts(entry, facts),
    )


def _facts(entry: catalog.ModelEntry, facts: ModelFacts) -> dict[str, Any]:
    return {
        "source": entry.source,
        "aliases": entry.aliases,
        "size_bytes": entry.size_bytes,
        "architecture": facts.architecture or None,
        "num_parameters": facts.num_parameters,
        "quantization": facts.quantization or entry.quantization or None,
        "input_kinds": facts.input_kinds,
        "task": facts.task,
        "has_chat_template": facts.has_chat_template,
        "has_tools": facts.has_tools,
    }


def _known_by_worker(status: WorkerStatus | None) -> dict[str, Any]:
    """What the loaded model itself says, which goes before its files."""
    if status is None:
        return {}
    found = {"architecture": status.architecture, "num_parameters": status.num_parameters}
    return {name: value for name, value in found.items() if value}


def _status(model: LoadedModel) -> ModelStatus:
    value = _STATUS_VALUES.get(model.state, _UNLOADED)
    return ModelStatus(
        value=value,
        progress=model.status.load_fraction if model.status and value == "loading" else None,
        failed=model.state == WorkerState.FAILED or None,
    )
