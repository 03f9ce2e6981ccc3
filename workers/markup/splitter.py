"""Splits an answer, which arrives in chunks, into reasoning, content and calls without markers.

A marker counts only where it is possible: reasoning at the beginning of an answer (in some dialects
also after a call), calls outside of the reasoning, an end marker directly after a call, and none in
content that follows a grammar. Text that may be the beginning of a marker is held back. White space
is kept inside the parts and dropped between them; an answer without markers is not changed. A
control token has a text here only as a part of a marker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from workers.markup.calls.call_reader import CallReader
from workers.markup.calls.format import CallFormat
from workers.markup.calls.source import CallEvent
from workers.markup.fed_text import FedText
from workers.markup.markers import CallMarker, Marker
from workers.text.matching import num_held_back


class Part(Enum):
    """The kind of a segment of an answer."""

    REASONING = auto()
    CONTENT = auto()
    CALL = auto()


class Segment(NamedTuple):
    """Text of reasoning or content, or an event of a call."""

    part: Part
    text: str = ""
    event: CallEvent | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """The possible parts of an answer.

    ``dropped``: texts that are dropped between the parts; those that begin with one of ``tokens``
    only if it was written as the one token that it is. The same holds for the start of interleaved
    reasoning and, outside of a grammar, of calls.
    ``is_thinking``: the prompt has opened the reasoning. ``is_constrained``: everything after the
    reasoning follows a grammar. ``is_interleaved``: reasoning may come after calls.
    """

    thinking: Marker | None = None
    calls: tuple[CallMarker, ...] = ()
    dropped: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    is_thinking: bool = False
    is_constrained: bool = False
    is_interleaved: bool = False

    @property
    def by_token(self) -> frozenset[str]:
        """The markers that begin with a token, and count only if it was written."""
        found = self.dropped
        if self.thinking is not None and self.is_interleaved:  # it may stand in content too
            found += (self.thinking.start,)
        if not self.is_constrained:
            found += tuple(one.text for one in self.calls)
        return frozenset(one for one in found if one.startswith(self.tokens))


NewCallReader = Callable[[CallFormat, bool], CallReader]


class Splitter:
    """Splits one answer; ``new_reader`` makes the readers of its calls."""

    def __init__(self, layout: Layout, new_reader: NewCallReader) -> None:
        self._layout = layout
        self._new_reader = new_reader
        self._is_before_content = True
        self._may_think = not layout.is_constrained or layout.is_thinking
        self._is_behind_call = False
        self._call: CallReader | None = None
        self._call_end = ""
        self._call_place = 0
        self._fed = FedText()
        self._by_token = layout.by_token
        self.part = Part.REASONING if layout.is_thinking else Part.CONTENT
        self._held = ""  # text that may become a marker
        self._blank = ""  # white space that may be the end of the part
        self._is_inside = not layout.is_thinking  # the part has text, so white space is kept
        self._markers = self._current_markers()

    def feed(self, text: str, num_control: int = 0) -> list[Segment]:
        """The segments that ``text`` adds, in order; its last ``num_control`` characters are a
        control token."""
        found: list[Segment] = []
        self._fed.add(text, num_control)
        rest = self._held + text
        self._held = ""
        while True:
            if self._call is not None:
                rest = self._read_call(rest, found)
                if self._call is not None:
                    return found
            match = self._first(rest)
            if match is None:
                break
            start, marker = match
            found += self._take(self._fed.plain(rest, start))
            rest = rest[start:]
            if marker in self._markers:  # the text before it may have changed the markers
                rest = self._pass_marker(marker, rest)
        return found + self._take_safe(rest)

    def finish(self, *, is_cut: bool) -> list[Segment]:
        """The segments held back. ``is_cut``: half a marker at the end is dropped."""
        found: list[Segment] = []
        if self._call is not None:
            self._add_events(self._call.finish(is_cut=is_cut), found)
            self._leave_call(found)
        held, self._held = self._held, ""
        # Where a grammar allows markup only, one letter of it is no text either.
        is_half = is_cut and (len(held) > 1 or self._expects_markup)
        is_half = is_half or held in self._markers
        found += [] if is_half else self._take(self._fed.plain(held))
        blank, self._blank = ("" if is_half else self._blank), ""
        if blank and self.part is Part.CONTENT:
            found.append(Segment(Part.CONTENT, blank))
        return found

    @property
    def _expects_markup(self) -> bool:
        """Whether a grammar holds the text here, of which no content has come yet."""
        is_between = self._is_before_content or self._is_behind_call
        return self._layout.is_constrained and self.part is Part.CONTENT and is_between

    def reads(self, text: str, *, is_end: bool) -> bool:
        """Whether the text of a control token has to be fed; an end token: if it ends a call."""
        if is_end:
            return self._call is not None and text == self._call_end
        return self._call is not None or any(text in marker for marker in self._markers)

    def _take_safe(self, text: str) -> list[Segment]:
        """Take the text except a suffix that may become a marker."""
        found: list[Segment] = []
        while True:
            markers = self._markers
            safe = len(text) - num_held_back(text, markers)
            found += self._take(self._fed.plain(text, safe))
            text = text[safe:]
            if not safe or self._markers == markers:  # content has fewer markers than its beginning
                self._held = text
                return found

    def _read_call(self, text: str, found: list[Segment]) -> str:
        """Feed the text to the call's reader; returns the text after the calls."""
        assert self._call is not None
        self._add_events(self._call.feed(text), found)
        if not self._call.is_over:
            return ""
        rest = self._call.rest
        self._leave_call(found)
        return rest

    def _add_events(self, events: Iterable[CallEvent], found: list[Segment]) -> None:
        found += [Segment(Part.CALL, event=event) for event in events]

    def _leave_call(self, found: list[Segment]) -> None:
        assert self._call is not None
        call, self._call = self._call, None
        text = self._fed.plain_at(self._call_place + call.text_place, call.text).strip()
        self._is_behind_call = True
        self._may_think = self._layout.is_interleaved
        self._is_before_content = False
        self._enter(Part.CONTENT)
        if text:
            found += self._take(text)
            found += self._take_blank()
            self._is_inside = False

    def _take_blank(self) -> list[Segment]:
        blank, self._blank = self._blank, ""
        return [Segment(Part.CONTENT, blank)] if blank else []

    def _take(self, text: str) -> list[Segment]:
        if not self._is_inside:
            text = text.lstrip()
        if not text:
            return []
        if self.part is Part.CONTENT and text.strip():
            self._begin_content()
        self._is_inside = True
        if not self._markers:
            blank, self._blank = self._blank, ""
            return [Segment(self.part, blank + text)]
        text = self._blank + text
        shown = text.rstrip()
        self._blank = text[len(shown) :]
        return [Segment(self.part, shown)] if shown else []

    def _begin_content(self) -> None:
        """Update the markers at the first text of content."""
        if self._is_before_content or self._may_think or self._is_behind_call:
            self._is_before_content = self._is_behind_call = False
            self._may_think = self._may_think and self._layout.is_interleaved
            self._markers = self._current_markers()

    def _pass_marker(self, marker: str, rest: str) -> str:
        """Enter the part after ``marker``; returns the text to read next."""
        layout, behind = self._layout, rest[len(marker) :]
        call = next((one for one in layout.calls if one.text == marker), None)
        if call is not None and self.part is Part.CONTENT:
            self._call = self._new_reader(call.call_format, call.is_constrained)
            self._call_end = call.call_format.end
            self._enter(Part.CALL)
            read = rest if call.is_kept else rest[len(call.call_format.start) :]
            self._call_place = self._fed.length - len(read)
            return read
        if layout.thinking is not None and marker == layout.thinking.start:
            self._enter(Part.REASONING)
        elif layout.thinking is not None and marker == layout.thinking.end:
            self._may_think = layout.is_interleaved
            self._enter(Part.CONTENT)
        else:
            self._enter(self.part)
        return behind

    def _enter(self, part: Part) -> None:
        self.part = part
        self._blank = ""
        self._is_inside = False
        self._markers = self._current_markers()

    def _current_markers(self) -> tuple[str, ...]:
        """The markers that are recognised at this point."""
        layout = self._layout
        if self.part is Part.CALL:
            return ()
        if self.part is Part.REASONING:
            assert layout.thinking is not None
            return (layout.thinking.end,)
        if layout.is_constrained and not self._expects_markup:
            return ()
        markers = [one.text for one in layout.calls if self._is_before_content or not one.is_first]
        if self._is_behind_call:
            markers += [one.call_format.end for one in layout.calls if one.call_format.end]
        if self._may_think and layout.thinking is not None:
            markers.append(layout.thinking.start)
        return tuple(dict.fromkeys((*markers, *layout.dropped)))

    def _first(self, text: str) -> tuple[int, str] | None:
        """Start of the first marker, and the marker; of two with the same start, the longer."""
        found = [(self._find(marker, text), -len(marker), marker) for marker in self._markers]
        places = [place for place in found if place[0] >= 0]
        if not places:
            return None
        start, _, marker = min(places)
        rest = text[start:]
        if any(len(one) > len(rest) and one.startswith(rest) for one in self._markers):
            return None  # it may become a longer one
        return start, marker

    def _find(self, marker: str, text: str) -> int:
        start = text.find(marker)
        while start >= 0 and marker in self._by_token:
            if self._fed.is_control(self._fed.length - len(text) + start):
                break
            start = text.find(marker, start + 1)
        return start
