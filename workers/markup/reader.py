"""Reads an answer's text, chunk by chunk, as reasoning, content and tool calls."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from jobs.contract.events import CalledTool
from workers.engines.base import Tokenizer
from workers.markup.dialects import Dialect
from workers.markup.parsers import ParsedCall
from workers.markup.splitter import Part, Segment, Splitter
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

    def feed(self, text: str) -> Delta:
        content, is_over = self._matcher.feed(text)
        return Delta(text=content, is_over=is_over)

    def finish(self, *, is_cut: bool) -> Delta:
        """The text held back, at the end; ``is_cut``: the answer ended at a limit."""
        return Delta(text=self._matcher.finish())

    def control_piece(self, token_id: int, *, is_end: bool) -> bytes:
        """Always b"": control tokens have no text here."""
        return b""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a request's answers are read.

    ``tools``: for the types of arguments. ``is_single``: an answer ends with its first call.
    ``is_thinking``: the prompt has opened the reasoning.
    """

    dialect: Dialect
    tools: list[dict[str, Any]] | None = None
    is_single: bool = False
    is_thinking: bool = False


class MarkupReader:
    """Reads an answer with reasoning or calls. Stop strings count only in its content.

    A call that is invalid or cut becomes content, without its markers. The ids of the calls are
    derived from ``answer_id``, so that they are the same in each attempt.
    """

    def __init__(
        self, stop: list[str], reading: Reading, tokenizer: Tokenizer, answer_id: str
    ) -> None:
        dialect = reading.dialect
        self._reading = reading
        self._tokenizer = tokenizer
        self._answer_id = answer_id
        self._matcher = StopMatcher(stop)
        self._splitter = Splitter(
            dialect.thinking, dialect.calls, dialect.dropped, is_thinking=reading.is_thinking
        )
        self._num_calls = 0

    @property
    def stop(self) -> str | None:
        """The stop string that ended the answer, if any."""
        return self._matcher.found

    @property
    def is_reasoning(self) -> bool:
        """Whether the end of the text so far is inside the reasoning."""
        return self._splitter.part is Part.REASONING

    @property
    def has_calls(self) -> bool:
        return self._num_calls > 0

    def feed(self, text: str) -> Delta:
        delta = Delta()
        for segment in self._splitter.feed(text):
            if not delta.is_over:
                self._add(segment, delta)
        return delta

    def finish(self, *, is_cut: bool) -> Delta:
        """See ``PlainReader``."""
        delta = Delta()
        for segment in self._splitter.finish(is_cut=is_cut):
            if not delta.is_over:
                self._add(segment, delta)
        if not delta.is_over:
            delta.text += self._matcher.finish()
        return delta

    def control_piece(self, token_id: int, *, is_end: bool) -> bytes:
        """The text of a control token that is a part of the markup; b"" for others."""
        text = self._tokenizer.control_text(token_id)
        return text.encode() if text and self._splitter.reads(text, is_end=is_end) else b""

    def _add(self, segment: Segment, delta: Delta) -> None:
        if segment.part is Part.REASONING:
            delta.reasoning += segment.text
        elif segment.part is Part.CONTENT:
            self._add_content(segment.text, delta)
        else:
            self._add_calls(segment, delta)

    def _add_content(self, text: str, delta: Delta) -> None:
        text, delta.is_over = self._matcher.feed(text)
        delta.text += text

    def _add_calls(self, segment: Segment, delta: Delta) -> None:
        parser = self._reading.dialect.parser
        assert parser is not None
        calls = parser.parse(segment.text, self._reading.tools) if segment.is_whole else None
        if calls is None:
            return self._add_content(segment.text.strip(), delta)
        for call in calls:
            if not delta.is_over:
                delta.calls.append(self._with_id(call))
                delta.is_over = self._reading.is_single

    def _with_id(self, call: ParsedCall) -> CalledTool:
        index = self._num_calls
        self._num_calls += 1
        digest = hashlib.sha256(f"{self._answer_id}:{index}".encode()).hexdigest()
        return CalledTool(index, call.id or f"call_{digest[:24]}", call.name, call.arguments)


Reader = PlainReader | MarkupReader
