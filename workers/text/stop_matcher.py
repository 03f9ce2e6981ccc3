"""Stop strings in a text that arrives in chunks."""

from __future__ import annotations

from collections.abc import Collection

from workers.text.matching import num_held_back


class StopMatcher:
    """Passes a text on up to the first stop string, which is cut off.

    The first one is the one that ends first; of several with the same end, the longest. So the
    result does not depend on the chunks. Text that may become a stop string is held back.
    ``found`` is the stop string that ended the text. Text that is fed while ``is_active`` is false
    is passed on whole.
    """

    def __init__(self, stops: Collection[str]) -> None:
        assert all(stops), "a stop string is empty"
        self._stops = tuple(stops)
        self._held = ""
        self.is_active = True
        self.found: str | None = None

    def feed(self, text: str) -> tuple[str, bool]:
        """The text that may be shown now, and whether it ended with a stop string."""
        text = self._held + text
        if not self.is_active:
            return text, False
        first = self._find(text)
        if first is not None:
            self._held = ""
            start, self.found = first
            return text[:start], True
        cut = len(text) - num_held_back(text, self._stops)
        self._held = text[cut:]
        return text[:cut], False

    def finish(self) -> str:
        """The text held back; call it when the sequence has ended without a stop string."""
        held, self._held = self._held, ""
        return held

    def _find(self, text: str) -> tuple[int, str] | None:
        """The start of the first stop string, and the string."""
        found = ((text.find(stop), stop) for stop in self._stops)
        ends = [(start + len(stop), start, stop) for start, stop in found if start >= 0]
        return min(ends)[1:] if ends else None
