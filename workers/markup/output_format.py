"""The form of answers: how each is read, and what it is held to."""

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
    begun_call,
    forced_calls,
    forced_dialect,
    placed,
)
from workers.markup.dialects import Dialect
from workers.markup.phases import Phases, Plan
from workers.markup.reader import MarkupReader, PlainReader, Reader, Reading
from workers.text.grammar import ConstraintMaker, GrammarCompiler

_TAIL = 16  # tokens; a prompt that opens the thoughts ends with their marker

Tools = list[dict[str, Any]]
NewConstraint = Callable[[], Constraint | None]


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """What holds for the answers to one prompt; each gets a reader and a constraint of its own."""

    reading: Reading
    stop: list[str]
    tokenizer: Tokenizer
    new_constraint: NewConstraint

    def reader(self, answer_id: str) -> Reader:
        """``answer_id`` is the same at each attempt."""
        dialect = self.reading.dialect
        if dialect.parser is None and dialect.thinking is None:
            return PlainReader(self.stop)
        return MarkupReader(self.stop, self.reading, self.tokenizer, answer_id)


class OutputFormats:
    """Finds the form that a request asks of one loaded model; may be used from any thread."""

    def __init__(self, tokenizer: Tokenizer, template: str) -> None:
        self._tokenizer = tokenizer
        self._dialect = Dialect.of(template, tokenizer)
        self._grammars = GrammarCompiler(tokenizer)

    def of(self, request: GenerateRequest, prompt: list[int], tools: Tools) -> OutputFormat:
        """Raises ``InvalidRequestError`` for a grammar or tools that cannot be honoured."""
        dialect = self._read_dialect(request)
        use = request.tool_use
        thinking = dialect.thinking
        is_thinking = thinking is not None and self._ends_with(prompt, thinking.start)
        reading = Reading(dialect, tools, use is not None and use.is_single, is_thinking)
        new_constraint = self._constraints(request, reading)
        return OutputFormat(reading, request.stop, self._tokenizer, new_constraint)

    def _read_dialect(self, request: GenerateRequest) -> Dialect:
        """The part of the model's dialect that this request wants read."""
        thinking = self._dialect.thinking if request.is_reasoning_split else None
        use = request.tool_use
        if use is None:
            return Dialect(None, thinking)
        dialect = Dialect(self._dialect.parser, thinking)
        if use.is_required and dialect.parser is None:
            reason = "how this model writes calls is not known, so it cannot be made to call"
            raise UnsupportedParameterError(f"tool_choice: {reason}", "tool_choice")
        is_bound = use.is_required or request.grammar is not None
        return forced_dialect(dialect) if is_bound else dialect

    def _ends_with(self, prompt: list[int], marker: str) -> bool:
        tokenizer = self._tokenizer
        texts = (tokenizer.piece(i) or tokenizer.control_text(i).encode() for i in prompt[-_TAIL:])
        return b"".join(texts).rstrip().endswith(marker.encode())

    def _constraints(self, request: GenerateRequest, reading: Reading) -> NewConstraint:
        """Makes what an answer is held to, at its beginning."""
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
        """The grammar of all that follows the thoughts."""
        use, parser, content = request.tool_use, reading.dialect.parser, request.grammar
        if use is None or parser is None or not (use.is_required or content):
            return self._placed(content, reading)
        if use.is_required:
            content = None
        elif content is not None and content.kind not in JSON_KINDS:
            reason = "with tools that the model may call, only JSON is possible"
            raise UnsupportedParameterError(f"{content.param}: {reason}", content.param)
        return forced_calls(parser, _callable(reading.tools, use), self._tokenizer, content)

    def _placed(self, content: Grammar | None, reading: Reading) -> Grammar | None:
        """The content where the dialect has it."""
        opening = reading.dialect.opening
        if content is None or not (reading.is_thinking or opening):
            return content
        return placed(content, opening, self._tokenizer)

    def _call_constraint(
        self, request: GenerateRequest, reading: Reading
    ) -> ConstraintMaker | None:
        """Makes what a call is held to that the model makes by itself, where there is a grammar.

        It is compiled here: the engine's thread, on which a call begins, must not wait for that.
        Schemas that the compiler does not know are told only to who asked for strict ones.
        """
        use, parser = request.tool_use, reading.dialect.parser
        if use is None or parser is None or not reading.tools:
            return None
        try:
            grammar = begun_call(parser, reading.tools, self._tokenizer)
            return None if grammar is None else self._grammars.prepare(grammar)
        except InvalidRequestError:
            if any(tool["function"].get("strict") for tool in reading.tools):
                raise
            return None


def _triggers(reading: Reading) -> tuple[str, ...]:
    parser = reading.dialect.parser
    return (parser.start,) if parser is not None else ()


def _callable(tools: Tools | None, use: ToolUse) -> Tools:
    """The tools that may be called."""
    return [tool for tool in tools or () if use.name in (None, tool["function"]["name"])]
