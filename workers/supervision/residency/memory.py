"""The memory that models need, and the machine's budget for all of them."""

from __future__ import annotations

from jobs.catalog.catalog import find_model
from jobs.contract.errors import ModelNotFoundError
from jobs.contract.records import DesiredModel
from jobs.settings import Settings
from workers.supervision.residency.views import Need


class ModelMemory:
    """Estimates of models, and the budget."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def need_of(self, desired: DesiredModel) -> Need:
        """What the model will need; nothing for one whose files are not here."""
        try:
            return Need(find_model(self._settings, desired.load.model_name).size_bytes)
        except ModelNotFoundError:
            return Need()

    def budget(self) -> int | None:
        """Bytes for all models together, ``None`` without a limit."""
        return None
