"""The output format of answers: how they are read, and how they are constrained."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.grammars import Grammar
from jobs.contract.requests import GenerateRequest, ToolUse
from workers.engines.base import Constraint, Tokenizer
from workers.markup.call_grammar import JSON_KINDS, call_rest, forced_calls, with_opening
from workers.markup.calls.format import CallFormat
from workers.markup.dialects import Dialect
from workers.markup.markers import CallMarker
from workers.markup.phases import Phases, Plan
from workers.markup.reader import MarkupReader, PlainReader, Reader, Reading
from workers.markup.splitter import Layout
from workers.text.grammar import ConstraintMaker, GrammarCompiler

_TAIL = 16  # last tokens of a prompt, which contain the marker if it opens the reasoning

Tools = list[dict[str, Any]]
NewConstraint = Callable[[], Constraint | None]


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """The output format of the answers to one prompt; each has its own reader and constraint."""

    reading: Reading
    stop: list[str]
    tokenizer: Tokenizer
    new_constraint: NewConstraint
    opened: str = ""
    """The marker that the prompt ends with: the answer begins inside of it."""

    def reader(self, answer_id: str) -> Reader:
        """A reader for one answer; ``answer_id`` must be the same in each attempt."""
        layout = self.reading.layout
        if not layout.calls and layout.thinking is None and not layout.dropped:
            return PlainReader(self.stop)
        reader = MarkupReader(self.stop, self.reading, self.tokenizer, answer_id)
        reader.open(self.opened)
        return reader


class OutputFormats:
    """Finds the output format of a request for one loaded model; any thread may use it."""

    def __init__(self, tokenizer: Tokenizer, template: str) -> None:
        self._tokenizer = tokenizer
        self._dialect = Dialect.of(template, tokenizer)
        self._grammars = GrammarCompiler(tokenizer)

    def of(self, request: GenerateRequest, prompt: list[int], tools: Tools) -> OutputFormat:
        """Raises ``InvalidRequestError`` for an invalid or unsupported grammar or tool."""
        dialect = self._read_dialect(request)
        use, thinking = request.tool_use, dialect.thinking
        is_thinking = thinking is not None and self._ends_with(prompt, thinking.start)
        opened = self._opened(prompt, dialect)
        whole = self._whole_grammar(request, dialect, tools, is_thinking, opened)
        call_constraints = self._call_constraints(request, dialect, tools) if whole is None else {}
        layout = layout_of(
            dialect,
            tools,
            call_constraints,
            is_thinking=is_thinking,
            is_constrained=whole is not None,
        )
        reading = Reading(layout, tools, use is not None and use.is_single)
        new_constraint = self._constraints(request, layout, whole, call_constraints, opened)
        return OutputFormat(reading, request.stop, self._tokenizer, new_constraint, opened)

    def _read_dialect(self, request: GenerateRequest) -> Dialect:
        """The part of the model's dialect that has to be read for this request."""
        thinking = self._dialect.thinking if request.is_reasoning_split else None
        use = request.tool_use
        if use is None:
            return replace(self._dialect, calls=None, thinking=thinking)
        if use.is_required and self._dialect.calls is None:
            reason = "the tool call format of this model is unknown, so it cannot be forced to call"
            raise UnsupportedParameterError(f"tool_choice: {reason}", "tool_choice")
        return replace(self._dialect, thinking=thinking)

    def _ends_with(self, prompt: list[int], marker: str) -> bool:
        tokenizer = self._tokenizer
        texts = (tokenizer.piece(i) or tokenizer.control_text(i).encode() for i in prompt[-_TAIL:])
        return b"".join(texts).rstrip().endswith(marker.encode())

    def _opened(self, prompt: list[int], dialect: Dialect) -> str:
        """The start of a call, or of content, that the prompt ends with."""
        start = self._dialect.calls.start if self._dialect.calls is not None else ""
        is_read = dialect.calls is not None or dialect.head
        return start if start and is_read and self._ends_with(prompt, start) else ""

    def _constraints(
        self,
        request: GenerateRequest,
        layout: Layout,
        whole: Grammar | None,
        call_constraints: dict[str, ConstraintMaker],
        opened: str,
    ) -> NewConstraint:
        """A function that makes the constraint of an answer in its initial state."""
        budget = request.reasoning_budget
        has_budget = budget is not None and layout.thinking is not None
        if not (has_budget or call_constraints or (whole and layout.is_thinking)):
            return lambda: self._compile(whole)

        def new_constraint() -> Constraint:
            plan = Plan(
                layout,
                budget,
                then=self._compile(whole),
                call_constraints=call_constraints,
                opened=opened,
            )
            return Phases(plan, self._tokenizer)

        return new_constraint

    def _compile(self, grammar: Grammar | None) -> Any:
        return None if grammar is None else self._grammars.compile(grammar)

    def _whole_grammar(
        self,
        request: GenerateRequest,
        dialect: Dialect,
        tools: Tools,
        is_thinking: bool,
        opened: str,
    ) -> Grammar | None:
        """The grammar of everything after the reasoning, if there is one."""
        use, call_format, content = request.tool_use, dialect.calls, request.grammar
        if use is None or call_format is None or not (use.is_required or content):
            return self._with_opening(content, dialect.opening.removeprefix(opened), is_thinking)
        if use.is_required:
            content = None
        elif content is not None and content.kind not in JSON_KINDS:
            reason = "together with tools, only JSON grammars are supported"
            raise UnsupportedParameterError(f"{content.param}: {reason}", content.param)
        head = dialect.head.removeprefix(opened)
        tools = _callable(tools, use)
        return forced_calls(
            call_format, tools, self._tokenizer, content, head=head, is_opened=bool(opened)
        )

    def _with_opening(
        self, content: Grammar | None, opening: str, is_thinking: bool
    ) -> Grammar | None:
        """The content's grammar with the text that the dialect writes before it."""
        if content is None or not (is_thinking or opening):
            return content
        return with_opening(content, opening, self._tokenizer)

    def _call_constraints(
        self, request: GenerateRequest, dialect: Dialect, tools: Tools
    ) -> dict[str, ConstraintMaker]:
        """By marker, makers of the constraint of a call that the model starts by itself.

        They are compiled here, because calls start on the engine's thread, which must not wait.
        """
        if request.tool_use is None or not tools:
            return {}
        formats = [one for one in (dialect.calls, dialect.bare_calls) if one is not None]
        head = dialect.head
        return {one.start: self._prepared(one, tools, head) for one in formats if one.start}

    def _prepared(self, call_format: CallFormat, tools: Tools, head: str) -> ConstraintMaker:
        try:
            return self._grammars.prepare(call_rest(call_format, tools, self._tokenizer, head))
        except InvalidRequestError:
            if any(tool["function"].get("strict") for tool in tools):
                raise
        # An unsupported schema must not leave the calls of other tools unconstrained.
        held = [self._holdable(call_format, tool) for tool in tools]
        return self._grammars.prepare(call_rest(call_format, held, self._tokenizer, head))

    def _holdable(self, call_format: CallFormat, tool: dict[str, Any]) -> dict[str, Any]:
        """The tool; without its parameters if their schema is not supported."""
        try:
            self._grammars.prepare(call_rest(call_format, [tool], self._tokenizer))
        except InvalidRequestError:
            return {**tool, "function": {"name": tool["function"]["name"]}}
        return tool


def layout_of(
    dialect: Dialect,
    tools: Tools,
    constrained: Collection[str] = (),
    *,
    is_thinking: bool = False,
    is_constrained: bool = False,
) -> Layout:
    """The possible parts of an answer to a request with these tools.

    ``constrained``: markers after which a call follows a grammar. ``is_constrained``: the whole
    answer does.
    """
    return Layout(
        dialect.thinking,
        _call_markers(dialect, tools, constrained, is_constrained) if dialect.calls else (),
        dialect.dropped,
        dialect.tokens,
        is_thinking,
        is_constrained,
        dialect.is_interleaved,
    )


def _call_markers(
    dialect: Dialect, tools: Tools, constrained: Collection[str], is_constrained: bool
) -> tuple[CallMarker, ...]:
    call_format = dialect.calls
    assert call_format is not None
    found = [
        CallMarker(text, one, is_constrained=is_constrained or one.start in constrained)
        for one, texts in _starts(dialect, tools)
        for text in texts
        if text
    ]
    objects = ("{",) if is_constrained and not call_format.start else dialect.objects
    found += [
        CallMarker(
            text,
            call_format,
            is_kept=True,
            is_first=True,
            is_constrained=is_constrained and not call_format.start,
        )
        for text in objects
    ]
    return tuple(found)


def _starts(dialect: Dialect, tools: Tools) -> Iterator[tuple[CallFormat, list[str]]]:
    if dialect.calls is not None:
        yield dialect.calls, dialect.call_starts(tools)
    if dialect.bare_calls is not None:
        yield dialect.bare_calls, [dialect.bare_calls.start]


def _callable(tools: Tools, use: ToolUse) -> Tools:
    """The tools that the request allows to call."""
    return [tool for tool in tools if use.name in (None, tool["function"]["name"])]
