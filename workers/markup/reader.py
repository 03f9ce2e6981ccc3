"""What of an answer's text may be shown, and as what: thoughts, content, calls of tools."""

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
    """What a piece of text adds to an answer; ``is_over``: nothing of what follows counts."""

    reasoning: str = ""
    text: str = ""
    calls: list[CalledTool] = field(default_factory=list)
    is_over: bool = False


class PlainReader:
    """An answer that is all content, up to a stop string."""

    is_reasoning = False
    has_calls = False

    def __init__(self, stop: list[str]) -> None:
        self._matcher = StopMatcher(stop)

    @property
    def stop(self) -> str | None:
        """The stop string that ended the answer."""
        return self._matcher.found

    def feed(self, text: str) -> Delta:
        shown, is_over = self._matcher.feed(text)
        return Delta(text=shown, is_over=is_over)

    def finish(self, *, is_cut: bool) -> Delta:
        """What was held back when the engine ended the text; ``is_cut``: at a limit."""
        return Delta(text=self._matcher.finish())

    def control_piece(self, token_id: int, *, is_end: bool) -> bytes:
        """A control token has no text."""
        return b""


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read out of a request's answers.

    ``tools`` are what its calls are checked against, ``is_single`` ends an answer with its first
    call, ``is_thinking`` says that the prompt has opened the thoughts.
    """

    dialect: Dialect
    tools: list[dict[str, Any]] | None = None
    is_single: bool = False
    is_thinking: bool = False


class MarkupReader:
    """An answer with thoughts or calls. Stop strings count in its content only.

    A call that cannot be read, or was cut, becomes content, without its markers. ``answer_id``
    makes the ids of the calls: told again, an answer has the same ones.
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
            dialect.thinking, dialect.calls, dialect.noise, is_thinking=reading.is_thinking
        )
        self._num_calls = 0

    @property
    def stop(self) -> str | None:
        """The stop string that ended the answer."""
        return self._matcher.found

    @property
    def is_reasoning(self) -> bool:
        """Whether the text has come to a place inside the thoughts."""
        return self._splitter.part is Part.REASONING

    @property
    def has_calls(self) -> bool:
        return self._num_calls > 0

    def feed(self, text: str) -> Delta:
        shown = Delta()
        for stretch in self._splitter.feed(text):
            if not shown.is_over:
                self._show(stretch, shown)
        return shown

    def finish(self, *, is_cut: bool) -> Delta:
        """What was held back when the engine ended the text; ``is_cut``: at a limit."""
        shown = Delta()
        for stretch in self._splitter.finish(is_cut=is_cut):
            if not shown.is_over:
                self._show(stretch, shown)
        if not shown.is_over:
            shown.text += self._matcher.finish()
        return shown

    def control_piece(self, token_id: int, *, is_end: bool) -> bytes:
        """The text of a control token where it is a part of the markup."""
        text = self._tokenizer.control_text(token_id)
        return text.encode() if text and self._splitter.reads(text, is_end=is_end) else b""

    def _show(self, stretch: Segment, shown: Delta) -> None:
        if stretch.part is Part.REASONING:
            shown.reasoning += stretch.text
        elif stretch.part is Part.CONTENT:
            self._show_content(stretch.text, shown)
        else:
            self._show_call(stretch, shown)

    def _show_content(self, text: str, shown: Delta) -> None:
        text, shown.is_over = self._matcher.feed(text)
        shown.text += text

    def _show_call(self, stretch: Segment, shown: Delta) -> None:
        parser = self._reading.dialect.parser
        assert parser is not None
        calls = parser.parse(stretch.text, self._reading.tools) if stretch.is_whole else None
        if calls is None:
            return self._show_content(stretch.text.strip(), shown)
        for call in calls:
            if not shown.is_over:
                shown.calls.append(self._called(call))
                shown.is_over = self._reading.is_single

    def _called(self, call: ParsedCall) -> CalledTool:
        index = self._num_calls
        self._num_calls += 1
        digest = hashlib.sha256(f"{self._answer_id}:{index}".encode()).hexdigest()
        return CalledTool(index, call.id or f"call_{digest[:24]}", call.name, call.arguments)


Reader = PlainReader | MarkupReader
