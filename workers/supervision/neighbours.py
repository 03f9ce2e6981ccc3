"""The other nodes: whom this supervisor knows of, whatever Redis has forgotten since."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

_REMEMBERED_S = 600.0


class Neighbours:
    """``look`` at each tick; a node is remembered for ten minutes after it was last listed."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._seen_at: dict[str, float] = {}

    def look(self, uids: Iterable[str], own_uid: str) -> None:
        """Note the nodes that are listed now."""
        now = self._monotonic()
        self._seen_at.update(dict.fromkeys(uids, now))
        self._seen_at = {
            uid: at
            for uid, at in self._seen_at.items()
            if uid != own_uid and now - at < _REMEMBERED_S
        }

    @property
    def are_none(self) -> bool:
        """True while no other node is known."""
        return not self._seen_at
