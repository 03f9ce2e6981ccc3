"""Grammars of answers with tool calls: forced calls, calls after a marker, and content."""

from __future__ import annotations

import json
from collections.abc import Sequence

from jobs.contract.grammars import Grammar, GrammarKind
from jobs.contract.schemas import loosen
from workers.engines.base import Tokenizer
from workers.markup.calls.format import CallFormat
from workers.markup.calls.rules import BLANK, Rules, Tool, guided, marker

JSON_KINDS = (GrammarKind.JSON_OBJECT, GrammarKind.JSON_SCHEMA)

_ANY_OBJECT = '{"type": "object"}'


def forced_calls(
    form: CallFormat,
    tools: Sequence[Tool],
    tokenizer: Tokenizer,
    content: Grammar | None = None,
) -> Grammar:
    """Grammar of one or more calls, or, if given, of ``content``: a JSON schema of the answer."""
    rules = Rules(tools, tokenizer)
    section = f"{rules.mark(form.start)} {form.section(rules)}".strip()
    other = " | content" if content is not None else ""
    repeat = "+" if form.start else ""
    lines = [f"start: calls{other}", f"calls: (_w {section}){repeat}"]
    if content is not None:
        lines.append(_content(content))
    return _grammar([*lines, *rules.lines])


def with_opening(content: Grammar, opening: str, tokenizer: Tokenizer) -> Grammar:
    """JSON after ``opening`` and the blank lines that models write; other grammars unchanged."""
    if content.kind not in JSON_KINDS:
        return content
    lines = [f"start: {marker(opening, tokenizer)} _w content", _content(content), BLANK]
    return Grammar(GrammarKind.LARK, "\n".join(lines), content.param)


def call_rest(form: CallFormat, tools: Sequence[Tool], tokenizer: Tokenizer) -> Grammar:
    """Grammar of a section of calls after its start marker."""
    rules = Rules(tools, tokenizer)
    section = form.section(rules)
    return _grammar([f"start: {section}", *rules.lines])


def _content(content: Grammar) -> str:
    schema = loosen(json.loads(content.text or _ANY_OBJECT)).schema
    return f"content: %json {guided(schema)}"


def _grammar(lines: list[str]) -> Grammar:
    return Grammar(GrammarKind.LARK, "\n".join([*lines, BLANK]), "tools")
