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
    call_format: CallFormat,
    tools: Sequence[Tool],
    tokenizer: Tokenizer,
    content: Grammar | None = None,
    *,
    head: str = "",
    is_opened: bool = False,
) -> Grammar:
    """Grammar of one or more calls, or, if given, of ``content``: a JSON schema of the answer.

    ``head``: the text before content. ``is_opened``: the prompt has the start of the first call.
    """
    rules = Rules(tools, tokenizer)
    body = call_format.section(rules)
    section = f"{rules.mark(call_format.start)} {body}".strip()
    other = f" | {rules.mark(head)} content" if content is not None else ""
    calls = (
        f"{body} (_w {section})*"
        if is_opened
        else f"(_w {section}){'+' if call_format.start else ''}"
    )
    lines = [f"start: calls{other}", f"calls: {calls}"]
    if content is not None:
        lines.append(_content(content))
    return _grammar([*lines, *rules.lines])


def with_opening(content: Grammar, opening: str, tokenizer: Tokenizer) -> Grammar:
    """JSON after ``opening`` and the blank lines that models write; other grammars unchanged."""
    if content.kind not in JSON_KINDS:
        return content
    lines = [f"start: {marker(opening, tokenizer)} _w content", _content(content), BLANK]
    return Grammar(GrammarKind.LARK, "\n".join(lines), content.param)


def call_rest(
    call_format: CallFormat, tools: Sequence[Tool], tokenizer: Tokenizer, head: str = ""
) -> Grammar:
    """Grammar of a section of calls after its start marker, or of the rest of a content's head."""
    rules = Rules(tools, tokenizer)
    section = call_format.section(rules)
    other = f" | {rules.mark(head.removeprefix(call_format.start))}" if head else ""
    return _grammar([f"start: {section}{other}", *rules.lines])


def _content(content: Grammar) -> str:
    schema = loosen(json.loads(content.text or _ANY_OBJECT)).schema
    return f"content: %json {guided(schema)}"


def _grammar(lines: list[str]) -> Grammar:
    return Grammar(GrammarKind.LARK, "\n".join([*lines, BLANK]), "tools")
