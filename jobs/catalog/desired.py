"""A model on disk as a desired model, as models.toml wants it."""

from __future__ import annotations

import secrets
import time
from typing import Literal

from jobs.catalog.catalog import ModelEntry, model_options
from jobs.catalog.names import model_id_of
from jobs.catalog.options import load_request_of
from jobs.contract.records import DesiredModel
from jobs.settings import Settings


def desired_model_of(
    settings: Settings,
    entry: ModelEntry,
    *,
    origin: Literal["explicit", "auto"],
    is_parked: bool,
    default_ttl_s: float = 0.0,
) -> DesiredModel:
    """Under its own name as the model_id. Raises the errors of ``load_request_of``."""
    options = model_options(settings, entry)
    ttl_s = default_ttl_s if options.ttl_s is None else options.ttl_s
    return DesiredModel(
        model_id=model_id_of(entry.name),
        uid=secrets.token_hex(8),
        load=load_request_of(settings, entry),
        load_job=f"load-{secrets.token_hex(16)}",
        created_at=time.time(),
        is_parked=is_parked,
        origin=origin,
        ttl_s=ttl_s or None,
        pinned=options.pinned,
        priority=options.priority,
    )
