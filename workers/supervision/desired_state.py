"""Keeps what is wanted through a loss of all of Redis' data: the models are still in memory."""

from __future__ import annotations

import logging

from jobs.storage.desired_models import Desired, Wants
from jobs.storage.sight import Sight

log = logging.getLogger(__name__)


class WantKeeper:
    """The wants as a supervisor last saw them. With another mark in Redis its data was lost.

    All heartbeats and locks were lost with them, so that nobody can be judged for a while.
    """

    def __init__(self, wants: Wants, sight: Sight) -> None:
        self._wants = wants
        self._sight = sight
        self._mark = ""
        self._known: dict[bytes, bytes] = {}

    def look(self) -> Desired:
        """All that is wanted; after a loss what was before it, put back."""
        mark, found = self._wants.marked()
        if not mark or mark != self._mark:
            if self._mark:
                log.error("redis has lost its data", extra={"wants": len(self._known)})
                self._sight.note_blindness()
            mark, found = self._wants.marked(self._known)
        self._mark, self._known = mark, found.raw
        return found
