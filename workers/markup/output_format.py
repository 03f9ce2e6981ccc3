"""The output format of answers: how they are read, and how they are constrained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.grammars import Grammar
from jobs.contract.requests import GenerateRequest, ToolUse
from workers.engines.base import Constraint, Tokenizer
from workers.markup.call_grammar import (
    JSON_KINDS,
    call_rest,
    forced_calls,
    forced_dialect,
    with_opening,
)
from workers.markup.dialects import Dialect
from workers.markup.phases import Phases, Plan
from workers.markup.reader import MarkupReader, PlainReader, Reader, Reading
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

    def reader(self, answer_id: str) -> Reader:
        """A reader for one answer; ``answer_id`` must be the same in each attempt."""
        dialect = self.reading.dialect
        if dialect.parser is None and dialect.thinking is None:
            return PlainReader(self.stop)
        return MarkupReader(self.stop, self.reading, self.tokenizer, answer_id)


class OutputFormats:
    """Finds the output format of a request for one loaded model; any thread may use it."""

    def __init__(self, tokenizer: Tokenizer, template: str) -> None:
        self._tokenizer = tokenizer
        self._dialect = Dialect.of(template, tokenizer)
        self._grammars = GrammarCompiler(tokenizer)

    def of(self, request: GenerateRequest, prompt: list[int], tools: Tools) -> OutputFormat:
        """Raises ``InvalidRequestError`` for an invalid or unsupported grammar or tool."""
        dialect = self._read_dialect(request)
        use = request.tool_use
        thinking = dialect.thinking
        is_thinking = thinking is not None and self._ends_with(prompt, thinking.start)
        reading = Reading(dialect, tools, use is not None and use.is_single, is_thinking)
        new_constraint = self._constraints(request, reading)
        return OutputFormat(reading, request.stop, self._tokenizer, new_constraint)

    def _read_dialect(self, request: GenerateRequest) -> Dialect:
        """The part of the model's dialect that has to be read for this request."""
        thinking = self._dialect.thinking if request.is_reasoning_split else None
        use = request.tool_use
        if use is None:
            return Dialect(None, thinking)
        dialect = Dialect(self._dialect.parser, thinking)
        if use.is_required and dialect.parser is None:
            reason = "the tool call format of this model is unknown, so it cannot be forced to call"
            raise UnsupportedParameterError(f"tool_choice: {reason}", "tool_choice")
        is_bound = use.is_required or request.grammar is not None
        return forced_dialect(dialect) if is_bound else dialect

    def _ends_with(self, prompt: list[int], marker: str) -> bool:
        tokenizer = self._tokenizer
        texts = (tokenizer.piece(i) or tokenizer.control_text(i).encode() for i in prompt[-_TAIL:])
        return b"".join(texts).rstrip().endswith(marker.encode())

    def _constraints(self, request: GenerateRequest, reading: Reading) -> NewConstraint:
        """A function that makes the constraint of an answer in its initial state."""
        thinking, budget = reading.dialect.thinking, request.reasoning_budget
        whole = self._whole_grammar(request, reading)
        call = self._call_constraint(request, reading) if whole is None else None
        has_budget = budget is not None and thinking is not None
        if not (has_budget or call or (whole and reading.is_thinking)):
            return lambda: self._compile(whole)

        def new_constraint() -> Constraint:
            plan = Plan(
                thinking,
                reading.is_thinking,
                budget,
                then=self._compile(whole),
                triggers=_triggers(reading) if call is not None else (),
                call=call,
            )
            return Phases(plan, self._tokenizer)

        return new_constraint

    def _compile(self, grammar: Grammar | None) -> Any:
        return None if grammar is None else self._grammars.compile(grammar)

    def _whole_grammar(self, request: GenerateRequest, reading: Reading) -> Grammar | None:
        """The grammar of everything after the reasoning, if there is one."""
        use, parser, content = request.tool_use, reading.dialect.parser, request.grammar
        if use is None or parser is None or not (use.is_required or content):
            return self._with_opening(content, reading)
        if use.is_required:
            content = None
        elif content is not None and content.kind not in JSON_KINDS:
            reason = "together with tools, only JSON grammars are supported"
            raise UnsupportedParameterError(f"{content.param}: {reason}", content.param)
        return forced_calls(parser, _callable(reading.tools, use), self._tokenizer, content)

    def _with_opening(self, content: Grammar | None, reading: Reading) -> Grammar | None:
        """The content's grammar with the text that the dialect writes before it."""
        opening = reading.dialect.opening
        if content is None or not (reading.is_thinking or opening):
            return content
        return with_opening(content, opening, self._tokenizer)

    def _call_constraint(
        self, request: GenerateRequest, reading: Reading
    ) -> ConstraintMaker | None:
        """Makes the constraint of a call that the model starts itself, if there is a grammar.

        It is compiled here, because calls start on the engine's thread, which must not wait.
        Unsupported schemas are an error only if a tool is ``strict``.
        """
        use, parser = request.tool_use, reading.dialect.parser
        if use is None or parser is None or not reading.tools:
            return None
        try:
            grammar = call_rest(parser, reading.tools, self._tokenizer)
            return None if grammar is None else self._grammars.prepare(grammar)
        except InvalidRequestError:
            if any(tool["function"].get("strict") for tool in reading.tools):
                raise
            return None


def _triggers(reading: Reading) -> tuple[str, ...]:
    parser = reading.dialect.parser
    return (parser.start,) if parser is not None else ()


def _callable(tools: Tools | None, use: ToolUse) -> Tools:
    """The tools that the request allows to call."""
    return [tool for tool in tools or () if use.name in (None, tool["function"]["name"])]
