"""Remembers why a model that a request asked for could not be loaded."""

from __future__ import annotations

from contextlib import suppress

from jobs.catalog.catalog import find_model
from jobs.catalog.fingerprint import fingerprint
from jobs.contract.errors import JobError, ModelNotFoundError
from jobs.contract.records import DesiredModel
from jobs.settings import Settings
from jobs.storage import names
from jobs.storage.connection import SyncRedis
from jobs.storage.residency.load_failures import note_load_failure


def note_failed_load(
    redis: SyncRedis, settings: Settings, desired: DesiredModel, error: JobError
) -> None:
    """The next requests for the model get this error, until a try is due or its files change."""
    with suppress(ModelNotFoundError):
        entry = find_model(settings, desired.load.model_name)
        slug = names.slug_of(desired.model_id)
        note_load_failure(redis, slug, error.to_info(), fingerprint(entry))
