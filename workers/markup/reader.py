"""Reads an answer's text, chunk by chunk, as reasoning, content and tool calls."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from jobs.contract.events import CalledTool
from workers.engines.base import Tokenizer
from workers.markup.calls.call_reader import CallReader
from workers.markup.calls.format import CallFormat
from workers.markup.calls.source import Ended, Started, Written
from workers.markup.splitter import Layout, Part, Segment, Splitter
from workers.text.stop_matcher import StopMatcher


@dataclass(slots=True)
class Delta:
    """What a chunk of text adds to an answer; ``is_over``: the answer ends with it."""

    reasoning: str = ""
    text: str = ""
    calls: list[CalledTool] = field(default_factory=list)
    is_over: bool = False


class PlainReader:
    """Reads an answer that is all content, up to a stop string."""

    is_reasoning = False
    has_calls = False

    def __init__(self, stop: list[str]) -> None:
        self._matcher = StopMatcher(stop)

    @property
    def stop(self) -> str | None:
        """The stop string that ended the answer, if any."""
        return self._matcher.found

    def heed_stops(self, is_heeded: bool) -> None:
        """Whether stop strings end the answer from here on."""
        self._matcher.is_active = is_heeded

    def feed(self, text: str) -> Delta:
        shown, is_over = self._matcher.feed(text)
        return Delta(text=shown, is_over=is_over)

    def finish(self, *, is_cut: bool) -> Delta:
        """The text held back, at the end; ``is_cut``: the answer ended at a limit."""
        return Delta(text=self._matcher.finish())

    def note_piece(self, piece: bytes) -> None:
        """Nothing: no token is markup here."""

    def control_piece(self, token_id: int, *, is_end: bool) -> bytes:
        """Always b"": control tokens have no text here."""
        return b""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a request's answers are read.

    ``tools``: for the types of arguments. ``is_single``: an answer ends with its first call.
    """

    layout: Layout
    tools: list[dict[str, Any]]
    is_single: bool = False


class MarkupReader:
    """Reads an answer with reasoning or calls. Stop strings count only in its content.

    Calls are streamed: first name and id, then the arguments piece by piece. An invalid call
    becomes content, without its markers. The ids of the calls are derived from ``answer_id``, so
    that they are the same in each attempt.
    """

    def __init__(
        self, stop: list[str], reading: Reading, tokenizer: Tokenizer, answer_id: str
    ) -> None:
        self._reading = reading
        self._tokenizer = tokenizer
        self._answer_id = answer_id
        self._matcher = StopMatcher(stop)
        self._splitter = Splitter(reading.layout, self._new_call)
        self._num_calls = 0
        self._markup = {token.encode() for token in reading.layout.tokens}
        self._num_control = 0  # characters of the control token that the next text ends with

    @property
    def stop(self) -> str | None:
        """The stop string that ended the answer, if any."""
        return self._matcher.found

    def heed_stops(self, is_heeded: bool) -> None:
        """Whether stop strings end the answer from here on."""
        self._matcher.is_active = is_heeded

    @property
    def is_reasoning(self) -> bool:
        """Whether the end of the text so far is inside the reasoning."""
        return self._splitter.part is Part.REASONING

    @property
    def has_calls(self) -> bool:
        return self._num_calls > 0

    def open(self, marker: str) -> None:
        """The prompt ends with the beginning of a marker, in which the answer goes on."""
        self._splitter.feed(marker, len(marker))

    def feed(self, text: str) -> Delta:
        shown = Delta()
        num_control, self._num_control = self._num_control, 0
        for segment in self._splitter.feed(text, num_control):
            if not shown.is_over:
                self._add(segment, shown)
        return shown

    def finish(self, *, is_cut: bool) -> Delta:
        """See ``PlainReader``."""
        shown = Delta()
        for segment in self._splitter.finish(is_cut=is_cut):
            if not shown.is_over:
                self._add(segment, shown)
        if not shown.is_over:
            shown.text += self._matcher.finish()
        return shown

    def note_piece(self, piece: bytes) -> None:
        """The next text ends with this token, which has a text; it may be a marker all the same."""
        if piece in self._markup:
            self._num_control = len(piece.decode())

    def control_piece(self, token_id: int, *, is_end: bool) -> bytes:
        """The text of a control token that is a part of the markup; b"" for others.

        It has to be fed next.
        """
        text = self._tokenizer.control_text(token_id)
        if not text or not self._splitter.reads(text, is_end=is_end):
            return b""
        self._num_control = len(text)
        return text.encode()

    def _new_call(self, call_format: CallFormat, is_constrained: bool) -> CallReader:
        return CallReader(call_format, self._reading.tools, is_constrained=is_constrained)

    def _add(self, segment: Segment, shown: Delta) -> None:
        if segment.part is Part.REASONING:
            shown.reasoning += segment.text
        elif segment.part is Part.CONTENT:
            text, shown.is_over = self._matcher.feed(segment.text)
            shown.text += text
        elif isinstance(segment.event, Ended):
            shown.is_over = self._reading.is_single
        elif segment.event is not None:
            shown.calls.append(self._called(segment.event))

    def _called(self, event: Started | Written) -> CalledTool:
        if isinstance(event, Written):
            return CalledTool(self._num_calls - 1, arguments=event.text)
        index = self._num_calls
        self._num_calls += 1
        digest = hashlib.sha256(f"{self._answer_id}:{index}".encode()).hexdigest()
        return CalledTool(index, event.id or f"call_{digest[:24]}", event.name, "")


Reader = PlainReader | MarkupReader
