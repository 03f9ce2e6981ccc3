"""Splits an answer, which arrives in chunks, into reasoning, content and calls without markers.

Text that may be the beginning of a marker is held back. White space is kept inside the parts and
dropped between them; an answer without markers is not changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from typing import NamedTuple

from workers.markup.dialects import Marker
from workers.text.matching import num_held_back


class Part(Enum):
    """The kind of a segment of an answer."""

    REASONING = auto()
    CONTENT = auto()
    CALL = auto()


class Segment(NamedTuple):
    """Text of one part. A call is one segment; ``is_whole`` is False if its end is missing."""

    part: Part
    text: str
    is_whole: bool = True


class Splitter:
    """Splits one answer. ``dropped``: texts to drop. ``is_thinking``: the prompt has opened the
    reasoning."""

    def __init__(
        self,
        thinking: Marker | None,
        calls: Iterable[Marker],
        dropped: Iterable[str] = (),
        *,
        is_thinking: bool,
    ) -> None:
        self._thinking = thinking
        self._calls = tuple(calls)
        self._dropped = tuple(dropped)
        self._is_before_content = True
        self._call: Marker | None = None
        self.part = Part.REASONING if is_thinking else Part.CONTENT
        self._held = ""  # text that may become a marker
        self._blank = ""  # white space that may be the end of the part
        self._payload = ""
        self._is_inside = not is_thinking  # the part has text, so white space is kept
        self._markers = self._current_markers()

    def feed(self, text: str) -> list[Segment]:
        """The segments that ``text`` adds, in order."""
        found: list[Segment] = []
        rest = self._held + text
        while match := _first(rest, self._markers):
            start, marker = match
            found += self._take(rest[:start])
            rest = rest[start:]
            if marker in self._markers:  # the text before it may have changed the markers
                found += self._pass_marker(marker)
                rest = rest[len(marker) :]
        safe = len(rest) - num_held_back(rest, self._markers)
        self._held = rest[safe:]
        return found + self._take(rest[:safe])

    def finish(self, *, is_cut: bool) -> list[Segment]:
        """The segments held back. ``is_cut``: half a marker at the end is dropped."""
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
        """Whether the text of a control token has to be fed; an end token: if it ends a call."""
        if is_end:
            return self._call is not None and text == self._call.end
        return self._call is not None or any(text in marker for marker in self._markers)

    def _take(self, text: str) -> list[Segment]:
        if self.part is Part.CALL:
            self._payload += text
            return []
        if not self._is_inside:
            text = text.lstrip()
        if not text:
            return []
        if self.part is Part.CONTENT and self._is_before_content and text.strip():
            self._is_before_content = False
            self._markers = self._current_markers()
        self._is_inside = True
        if not self._markers:
            return [Segment(self.part, text)]
        text = self._blank + text
        shown = text.rstrip()
        self._blank = text[len(shown) :]
        return [Segment(self.part, shown)] if shown else []

    def _pass_marker(self, marker: str) -> list[Segment]:
        """Enter the part after ``marker``; returns the call that it ends, if any."""
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
        elif marker in self._dropped:
            self._enter(self.part)
        return ended

    def _enter(self, part: Part) -> None:
        self.part = part
        self._blank = ""
        self._is_inside = False
        self._markers = self._current_markers()

    def _end_call(self, *, is_whole: bool) -> list[Segment]:
        payload, self._payload, self._call = self._payload, "", None
        return [Segment(Part.CALL, payload, is_whole)]

    def _current_markers(self) -> tuple[str, ...]:
        """The markers that are recognised in this part."""
        if self.part is Part.CALL:
            assert self._call is not None
            return (self._call.end,) if self._call.end else ()
        markers = [
            call.start for call in self._calls if self._is_before_content or not call.is_first
        ]
        if self.part is Part.REASONING:
            assert self._thinking is not None
            return (self._thinking.end, *markers)
        # An end marker without its start marker is dropped too.
        markers += [call.end for call in self._calls if call.end]
        markers += self._dropped
        return (*markers, self._thinking.start) if self._thinking else tuple(markers)


def _first(text: str, markers: Iterable[str]) -> tuple[int, str] | None:
    """Start of the first marker, and the marker; of two with the same start, the longer."""
    found = [(text.find(marker), -len(marker), marker) for marker in markers]
    hits = [hit for hit in found if hit[0] >= 0]
    if not hits:
        return None
    start, _, marker = min(hits)
    return start, marker
