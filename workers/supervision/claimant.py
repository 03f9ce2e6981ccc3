"""Which models a supervisor takes ownership of."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping

from jobs.catalog.catalog import NO_MODELS, read_catalog
from jobs.contract.errors import ModelNotFoundError
from jobs.contract.records import DesiredModel
from jobs.settings import Settings
from jobs.storage.contact import RedisContact
from jobs.storage.desired_models import DesiredModels, DesiredSnapshot
from workers.supervision.node_identity import Neighbours
from workers.supervision.ownership import Ownership

_LAST_RESORT_S = 3.0
_CATALOG_AGE_S = 0.5  # reading it for each of many parked models would take seconds

log = logging.getLogger(__name__)


class Claimant:
    """Takes ownership of models. A model whose worker sends heartbeats stays with its owner."""

    def __init__(
        self,
        settings: Settings,
        desired_models: DesiredModels,
        ownership: Ownership,
        contact: RedisContact,
        neighbours: Neighbours,
    ) -> None:
        self._settings = settings
        self._neighbours = neighbours
        self._desired_models = desired_models
        self._ownership = ownership
        self._contact = contact
        self._missing_since: dict[str, float] = {}
        self._catalog = NO_MODELS
        self._read_at = -_CATALOG_AGE_S

    def loadable(self, missing: Mapping[str, DesiredModel]) -> list[str]:
        """Desired models that run nowhere, without those that this machine must not load."""
        self._missing_since = {k: v for k, v in self._missing_since.items() if k in missing}
        running = self._desired_models.with_heartbeat(sorted(missing)) - self._ownership.held
        return [
            slug
            for slug, desired in missing.items()
            if slug not in running and self._may_load(slug, desired)
        ]

    def to_restart(self, snapshot: DesiredSnapshot, running: Collection[str]) -> set[str]:
        """Models that this node owns and will start again, or whose entry it cannot read.

        A parked model belongs to nobody: any machine may start it when a job comes.
        """
        idle = self._ownership.held.difference(running)
        desired_models = {
            slug: snapshot.desired_models[slug] for slug in idle if slug in snapshot.desired_models
        }
        loadable = {
            slug
            for slug, desired in desired_models.items()
            if not desired.is_parked and self._has_files(desired)
        }
        return loadable | (idle & snapshot.unreadable)

    def take(self, slugs: Collection[str]) -> list[str]:
        """Take models that do not run here. Returns those that this supervisor owns now."""
        with_heartbeat = self._desired_models.with_heartbeat(sorted(slugs))
        # A node that is alone takes nothing from others, even after an interruption.
        may_take_free = self._contact.is_stable or self._neighbours.is_empty
        return [
            slug
            for slug in sorted(slugs)
            if self._ownership.take(slug, may_be_new=may_take_free and slug not in with_heartbeat)
        ]

    def _may_load(self, slug: str, desired: DesiredModel) -> bool:
        """False without the model's files, so that another node can take it.

        After a while True for a model that was never ready, so that its load reports the error.
        """
        if self._has_files(desired):
            return True
        since = self._missing_since.setdefault(slug, time.monotonic())
        return not desired.was_ready and time.monotonic() - since >= _LAST_RESORT_S

    def _has_files(self, desired: DesiredModel) -> bool:
        if time.monotonic() - self._read_at >= _CATALOG_AGE_S:
            self._catalog, self._read_at = read_catalog(self._settings), time.monotonic()
        try:
            self._catalog.find(desired.load.model_name, "llm_model_name")
        except ModelNotFoundError:
            return False
        return True
