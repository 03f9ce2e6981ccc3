"""Round trips of random calls and texts in a call format: writer, grammar and reader agree."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema_rs
import numpy as np

from jobs.contract.grammars import Grammar
from tests.helpers.written_calls import Tool, random_call, written
from workers.engines.base import Constraint
from workers.engines.fake import FakeTokenizer
from workers.markup.call_grammar import call_rest
from workers.markup.calls.call_reader import CallReader
from workers.markup.calls.format import Tools
from workers.markup.calls.formats import FORMATS
from workers.markup.calls.source import CallEvent, Ended, Started, Written
from workers.text.grammar import GrammarCompiler

_STRUCTURE = np.isin(np.arange(256), list(b"<>/\"\\ \n'x1t{}[]:,nul("))


def check_written(rng: random.Random, compiler: GrammarCompiler, name: str) -> Tool:
    """A random call: the grammar allows its text, and the reader parses it, however it is split.

    Returns its tool.
    """
    tool, arguments, text = _writable(rng, name)
    constraint = compiler.compile(grammar_of(name, [tool]))
    place = follow(constraint, text.encode())
    assert place is None, (text, arguments, text.encode()[:place], tool)
    events = _read(name, [tool], text, rng.randint(1, 9))
    (got,) = _arguments_of(events)
    assert _exact(got) == _exact(json.dumps(arguments)), (text, arguments)
    assert isinstance(events[-1], Ended)
    cut = text[: rng.randint(0, len(text))]
    for begun in _arguments_of(_read(name, [tool], cut, rng.randint(1, 9), is_cut=True)):
        assert got.startswith(begun), (cut, begun)
    return tool


def check_drawn(
    rng: random.Random, compiler: GrammarCompiler, name: str, tool: Tool | None = None
) -> None:
    """A random text of the grammar of a tool, by default a random one: its arguments match."""
    tool = tool or random_call(rng)[0]
    drawn = _draw(rng, compiler.prepare(grammar_of(name, [tool]))())
    try:
        text = (drawn or b"").decode()
    except UnicodeDecodeError:
        return
    if not text:
        return
    validator = jsonschema_rs.validator_for(tool["function"]["parameters"])
    events = _read(name, [tool], text, rng.randint(1, 9))
    assert isinstance(events[-1], Ended), text
    for got in _arguments_of(events):
        validator.validate(json.loads(got))


def grammar_of(name: str, tools: Tools) -> Grammar:
    """The grammar of the format's calls after its start marker."""
    return call_rest(FORMATS[name], tools, FakeTokenizer())


def follow(constraint: Constraint, text: bytes) -> int | None:
    """The position at which the grammar rejects the text."""
    for place, byte in enumerate(text):
        mask = constraint.allowed()
        if mask is not None and not mask[byte]:
            return place
        constraint.accept(byte)
    return None


def _writable(rng: random.Random, name: str) -> tuple[Tool, dict[str, Any], str]:
    """A call that the format can express, and its text."""
    while True:
        tool, arguments = random_call(rng)
        if (text := written(FORMATS[name], tool, arguments)) is not None:
            return tool, arguments, text


def _read(
    name: str, tools: Tools, text: str, size: int, *, is_cut: bool = False
) -> list[CallEvent]:
    reader = CallReader(FORMATS[name], tools, is_constrained=True)
    found: list[CallEvent] = []
    for place in range(0, len(text), size):
        found += reader.feed(text[place : place + size])
    found += reader.finish(is_cut=is_cut)
    assert reader.text == "", (text, reader.text)
    assert reader.rest.strip() == "", (text, reader.rest)
    return found


def _arguments_of(events: list[CallEvent]) -> list[str]:
    """The joined arguments of each call."""
    found: list[str] = []
    for event in events:
        if isinstance(event, Started):
            assert event.name == "f"
            found.append("")
        elif isinstance(event, Written):
            found[-1] += event.text
    return found


def _exact(text: str) -> Any:
    return json.loads(text, parse_float=str)


def _draw(rng: random.Random, constraint: Any, longest: int = 400) -> bytes | None:
    """A random text of the grammar, mostly of its structural tokens; ``None`` if it is too long."""
    text = b""
    while len(text) < longest:
        mask = constraint.allowed()[:256]
        allowed = np.flatnonzero(mask)
        if constraint.is_complete and (rng.random() < 0.5 or not len(allowed)):
            return text
        few = np.flatnonzero(mask & _STRUCTURE) if len(allowed) > 40 else allowed
        byte = int(rng.choice(few if len(few) and rng.random() < 0.9 else allowed))
        constraint.accept(byte)
        text += bytes([byte])
    return None
