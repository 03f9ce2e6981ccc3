"""Keeps what is wanted through a loss of all of Redis' data: the models are still in memory."""

from __future__ import annotations

import logging

from jobs.storage.desired_models import DesiredModels, DesiredSnapshot
from jobs.storage.sight import Sight

log = logging.getLogger(__name__)


class DesiredState:
    """The desired models as a supervisor last saw them. With another mark in Redis, its data
    was lost.

    All heartbeats and locks were lost with them, so that nobody can be judged for a while.
    """

    def __init__(self, desired_models: DesiredModels, sight: Sight) -> None:
        self._desired_models = desired_models
        self._sight = sight
        self._mark = ""
        self._known: dict[bytes, bytes] = {}

    def look(self) -> DesiredSnapshot:
        """All that is wanted; after a loss what was before it, put back."""
        mark, found = self._desired_models.marked()
        if not mark or mark != self._mark:
            if self._mark:
                log.error("redis has lost its data", extra={"desired": len(self._known)})
                self._sight.note_blindness()
            mark, found = self._desired_models.marked(self._known)
        self._mark, self._known = mark, found.raw
        return found
