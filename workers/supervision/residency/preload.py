"""Models that models.toml wants to be loaded when the server starts."""

from __future__ import annotations

import logging

from jobs.catalog.catalog import ModelEntry, read_catalog
from jobs.catalog.desired import desired_model_of
from jobs.contract.errors import JobError
from jobs.settings import Settings
from jobs.storage import names
from jobs.storage.desired_models import DesiredModels

log = logging.getLogger(__name__)


def preload(settings: Settings, desired_models: DesiredModels) -> None:
    """Make them desired, and resident where they are parked."""
    catalog = read_catalog(settings)
    for entry in catalog.entries:
        if catalog.options_of(entry).preload:
            try:
                _preload(settings, desired_models, entry)
            except JobError as error:
                extra = {"model": entry.name, "error": error.message}
                log.error("model cannot be preloaded", extra=extra)


def _preload(settings: Settings, desired_models: DesiredModels, entry: ModelEntry) -> None:
    desired = desired_model_of(settings, entry, origin="explicit", is_parked=False)
    slug = names.slug_of(desired.model_id)
    if desired_models.put(slug, desired):
        return
    existing = desired_models.get(slug)
    if existing is not None and existing.is_parked and existing.load.model_name == entry.name:
        desired_models.change(slug, existing.uid, is_parked=False)
