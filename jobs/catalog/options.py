"""The load request of a model as models.toml wants it."""

from __future__ import annotations

from typing import Any

import msgspec

from jobs.catalog.catalog import ModelEntry, find_adapter, find_draft, model_options
from jobs.contract.requests import GenerationDefaults, LoadRequest
from jobs.settings import Settings


def load_request_of(settings: Settings, entry: ModelEntry, **given: Any) -> LoadRequest:
    """The load request of a model: what is ``given``, else what models.toml says.

    ``given`` has the fields of ``LoadRequest``; those that are ``None`` are not given. Adapter and
    draft model may be any of their names. Raises ``AdapterNotFoundError``, ``ModelNotFoundError``
    or ``InvalidRequestError`` for those.
    """
    options = model_options(settings, entry)
    fields = options.load.model_dump(exclude_none=True)
    fields |= {name: value for name, value in given.items() if value is not None}
    adapter = fields.pop("adapter_name", None)
    adapter, draft = fields.pop("adapter", adapter), fields.pop("draft_model", None)
    defaults = fields.pop("defaults", GenerationDefaults())
    return LoadRequest(
        model_name=entry.name,
        backend=entry.backend,
        adapter=find_adapter(settings.adapters_dir, adapter, entry.backend).name
        if adapter
        else None,
        draft_model=find_draft(settings, draft, entry.backend).name if draft else None,
        defaults=_with(defaults, options.defaults.model_dump(exclude_none=True)),
        **fields,
    )


def _with(given: GenerationDefaults, others: dict[str, Any]) -> GenerationDefaults:
    """``given``, and of ``others`` what it leaves out."""
    missing = {name: value for name, value in others.items() if getattr(given, name) is None}
    return msgspec.structs.replace(given, **missing)
