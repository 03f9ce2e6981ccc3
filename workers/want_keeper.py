"""Keeps what is wanted through a loss of all of Redis' data: the models are still in memory."""

from __future__ import annotations

import logging

from jobs.records import Want
from jobs.wants import Wants

log = logging.getLogger(__name__)


class WantKeeper:
    """The wants as a supervisor last saw them. With another mark in Redis its data was lost."""

    def __init__(self, wants: Wants) -> None:
        self._wants = wants
        self._mark = ""
        self._known: dict[str, Want] = {}

    def look(self) -> dict[str, Want]:
        """All wants by slug; after a loss those of before it, put back."""
        mark, found = self._wants.marked()
        if not mark or mark != self._mark:
            if self._mark:
                log.error("redis has lost its data", extra={"wants": len(self._known)})
            mark, found = self._wants.marked(self._known)
        self._mark, self._known = mark, found
        return found
