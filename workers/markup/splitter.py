"""An answer that arrives in chunks, split into thoughts, content and calls; its markers are gone.

Text that may be the beginning of a marker is held back. White space is dropped between the parts
and kept inside them: an answer without any marker comes out as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from typing import NamedTuple

from workers.markup.dialects import Marker
from workers.text.matching import num_held_back


class Part(Enum):
    """What a stretch of an answer is."""

    REASONING = auto()
    CONTENT = auto()
    CALL = auto()


class Segment(NamedTuple):
    """Text of one part; a call's comes whole, ``is_whole`` is false when it was cut."""

    part: Part
    text: str
    is_whole: bool = True


class Splitter:
    """One answer. ``is_thinking``: its prompt ended with the beginning of the thoughts."""

    def __init__(
        self,
        thinking: Marker | None,
        calls: Iterable[Marker],
        noise: Iterable[str] = (),
        *,
        is_thinking: bool,
    ) -> None:
        self._thinking = thinking
        self._calls = tuple(calls)
        self._noise = tuple(noise)
        self._is_fresh = True  # no content yet
        self._call: Marker | None = None
        self.part = Part.REASONING if is_thinking else Part.CONTENT
        self._held = ""  # may become a marker
        self._blank = ""  # white space that may be the part's last
        self._payload = ""
        self._is_inside = not is_thinking  # the part has begun, so that white space counts
        self._edges = self._edges_here()

    def feed(self, text: str) -> list[Segment]:
        """What ``text`` adds, in order."""
        found: list[Segment] = []
        rest = self._held + text
        while match := _first(rest, self._edges):
            start, marker = match
            found += self._take(rest[:start])
            rest = rest[start:]
            if marker in self._edges:  # what came before it may have ended that
                found += self._cross(marker)
                rest = rest[len(marker) :]
        safe = len(rest) - num_held_back(rest, self._edges)
        self._held = rest[safe:]
        return found + self._take(rest[:safe])

    def finish(self, *, is_cut: bool) -> list[Segment]:
        """What was held back. ``is_cut``: half a marker at the end was to become one."""
        held, self._held = self._held, ""
        is_half = is_cut and len(held) > 1 and self.part is not Part.CALL
        found = [] if is_half else self._take(held)
        self._blank = "" if is_half else self._blank
        if self._call is not None:
            return found + self._end_call(is_whole=not self._call.end)
        blank, self._blank = self._blank, ""
        if blank and self.part is Part.CONTENT:
            found.append(Segment(Part.CONTENT, blank))
        return found

    def reads(self, text: str, *, is_end: bool) -> bool:
        """Whether the text of a control token means something here; at the end: ends the call."""
        if is_end:
            return self._call is not None and text == self._call.end
        return self._call is not None or any(text in edge for edge in self._edges)

    def _take(self, text: str) -> list[Segment]:
        if self.part is Part.CALL:
            self._payload += text
            return []
        if not self._is_inside:
            text = text.lstrip()
        if not text:
            return []
        if self.part is Part.CONTENT and self._is_fresh and text.strip():
            self._is_fresh = False
            self._edges = self._edges_here()
        self._is_inside = True
        if not self._edges:
            return [Segment(self.part, text)]
        text = self._blank + text
        shown = text.rstrip()
        self._blank = text[len(shown) :]
        return [Segment(self.part, shown)] if shown else []

    def _cross(self, marker: str) -> list[Segment]:
        """Go on behind ``marker``, which may end a call."""
        ended: list[Segment] = []
        call = next((call for call in self._calls if call.start == marker), None)
        if self._call is not None:
            self._payload += marker if self._call.is_kept else ""
            ended = self._end_call(is_whole=True)
            self._enter(Part.CONTENT)
        elif call is not None:
            self._call = call
            self._payload = marker if call.is_kept else ""
            self._enter(Part.CALL)
        elif self._thinking is not None and marker == self._thinking.start:
            self._enter(Part.REASONING)
        elif self._thinking is not None and marker == self._thinking.end:
            self._enter(Part.CONTENT)
        elif marker in self._noise:
            self._enter(self.part)
        return ended

    def _enter(self, part: Part) -> None:
        self.part = part
        self._blank = ""
        self._is_inside = False
        self._edges = self._edges_here()

    def _end_call(self, *, is_whole: bool) -> list[Segment]:
        payload, self._payload, self._call = self._payload, "", None
        return [Segment(Part.CALL, payload, is_whole)]

    def _edges_here(self) -> tuple[str, ...]:
        """The markers that mean something in this part."""
        if self.part is Part.CALL:
            assert self._call is not None
            return (self._call.end,) if self._call.end else ()
        edges = [call.start for call in self._calls if self._is_fresh or not call.is_first]
        if self.part is Part.REASONING:
            assert self._thinking is not None
            return (self._thinking.end, *edges)
        # The end of a call whose beginning the model left out is no text.
        edges += [call.end for call in self._calls if call.end]
        edges += self._noise
        return (*edges, self._thinking.start) if self._thinking else tuple(edges)


def _first(text: str, markers: Iterable[str]) -> tuple[int, str] | None:
    """Where the first marker stands, and which; of two at one place, the longer."""
    found = [(text.find(marker), -len(marker), marker) for marker in markers]
    places = [place for place in found if place[0] >= 0]
    if not places:
        return None
    start, _, marker = min(places)
    return start, marker
