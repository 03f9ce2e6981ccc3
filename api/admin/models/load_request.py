"""From a body with load options to the load request."""

from __future__ import annotations

from api.admin.models.schema import LoadBody
from api.dialects.generation_params import checked_text
from api.dialects.sampling_fields import OURS
from jobs.catalog.catalog import find_adapter, find_draft, find_model
from jobs.contract.errors import UnsupportedParameterError
from jobs.contract.requests import GenerationDefaults, LoadRequest
from jobs.settings import Settings


def refuse_unknown_options(body: LoadBody) -> None:
    """Raise ``UnsupportedParameterError`` for an option that this server does not have."""
    if body.unknown_options:
        name = body.unknown_options[0]
        raise UnsupportedParameterError(f"{name}: not a load option of this server", name)


def load_request(settings: Settings, body: LoadBody) -> LoadRequest:
    """The load request; each name is looked up on disk, and refused by its field if not found."""
    entry = find_model(settings, body.llm_model_name)
    adapter, draft = body.adapter_name, body.draft_model
    request = LoadRequest(
        model_name=entry.name,
        backend=entry.backend,
        chat_format=body.chat_format or None,
        context_length=body.context_length,
        slots=body.slots,
        threads=body.threads,
        gpu_layers=body.gpu_layers,
        trust_remote_code=bool(body.trust_remote_code),
        adapter=find_adapter(settings.adapters_dir, adapter, entry.backend).name
        if adapter
        else None,
        kv_bits=body.kv_bits,
        kv_layout=body.kv_layout,
        draft_model=find_draft(settings, draft, entry.backend).name if draft else None,
        num_draft_tokens=body.num_draft_tokens,
        prompt_cache_bytes=body.prompt_cache_bytes,
        defaults=GenerationDefaults(max_tokens=body.max_tokens, **OURS.read(body)),
    )
    return checked_text(request, body)
