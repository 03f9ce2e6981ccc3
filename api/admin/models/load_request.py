"""From a body with load options to the load request."""

from __future__ import annotations

from api.admin.models.loading import Keeping
from api.admin.models.schema import LoadBody
from api.dialects.generation_params import checked_text
from api.dialects.sampling_fields import OURS
from jobs.catalog.catalog import find_model, model_options
from jobs.catalog.models_file import ModelOptions
from jobs.catalog.options import load_request_of
from jobs.contract.errors import UnsupportedParameterError
from jobs.contract.requests import GenerationDefaults, LoadRequest
from jobs.settings import Settings


def refuse_unknown_options(body: LoadBody) -> None:
    """Raise ``UnsupportedParameterError`` for an option that this server does not have."""
    if body.unknown_options:
        name = body.unknown_options[0]
        raise UnsupportedParameterError(f"{name}: not a load option of this server", name)


def load_request(settings: Settings, body: LoadBody) -> LoadRequest:
    """The load request of the body, see ``load_request_and_keeping``."""
    return load_request_and_keeping(settings, body)[0]


def load_request_and_keeping(settings: Settings, body: LoadBody) -> tuple[LoadRequest, Keeping]:
    """The body, and what models.toml says where it says nothing.

    Each name is looked up on disk, and refused by its field if not found.
    """
    entry = find_model(settings, body.llm_model_name)
    request = load_request_of(
        settings,
        entry,
        chat_format=body.chat_format or None,
        context_length=body.context_length,
        slots=body.slots,
        threads=body.threads,
        gpu_layers=body.gpu_layers,
        trust_remote_code=body.trust_remote_code,
        adapter=body.adapter_name,
        kv_bits=body.kv_bits,
        kv_layout=body.kv_layout,
        draft_model=body.draft_model,
        num_draft_tokens=body.num_draft_tokens,
        prompt_cache_bytes=body.prompt_cache_bytes,
        defaults=GenerationDefaults(max_tokens=body.max_tokens, **OURS.read(body)),
    )
    return checked_text(request, body), _keeping(body, model_options(settings, entry))


def _keeping(body: LoadBody, options: ModelOptions) -> Keeping:
    return Keeping(
        ttl_s=(options.ttl_s or None) if body.ttl is None else body.ttl,
        pinned=options.pinned if body.pinned is None else body.pinned,
        priority=options.priority if body.priority is None else body.priority,
    )
