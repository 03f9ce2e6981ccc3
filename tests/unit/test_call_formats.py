"""Each way of writing calls: what its grammar allows its reader gives back, cut or whole."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import jsonschema_rs
import numpy as np
import pytest

from jobs.contract.grammars import Grammar
from tests.helpers.written_calls import random_call, written
from workers.engines.base import Constraint
from workers.engines.fake import FakeTokenizer
from workers.markup.call_grammar import call_rest
from workers.markup.calls.call_reader import CallReader
from workers.markup.calls.format import Tools
from workers.markup.calls.formats import FORMATS
from workers.markup.calls.rules import marker
from workers.markup.calls.source import Begun, CallEvent, Ended, Written
from workers.text.grammar import GrammarCompiler

NUM_CALLS = int(os.environ.get("NUM_READ_CALLS", "12"))
STRUCTURE = b"<>/\"\\ \n'x1t{}[]:,nul("


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    return GrammarCompiler(FakeTokenizer())


def grammar_of(name: str, tools: Tools) -> Grammar:
    return call_rest(FORMATS[name], tools, FakeTokenizer())


def read(name: str, tools: Tools, text: str, size: int, *, is_cut: bool = False) -> list[CallEvent]:
    reader = CallReader(FORMATS[name], tools, is_held=True)
    found: list[CallEvent] = []
    for place in range(0, len(text), size):
        found += reader.feed(text[place : place + size])
    found += reader.finish(is_cut=is_cut)
    assert reader.text == ""
    assert reader.rest.strip() == ""
    return found


def arguments_of(events: list[CallEvent]) -> list[str]:
    """Each call's arguments, put together."""
    found: list[str] = []
    for event in events:
        if isinstance(event, Begun):
            assert event.name == "f"
            found.append("")
        elif isinstance(event, Written):
            found[-1] += event.text
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_arguments_come_back_as_they_were_meant(compiler: GrammarCompiler, name: str) -> None:
    rng = random.Random(name)
    num_read = 0
    while num_read < NUM_CALLS:
        tool, arguments = random_call(rng)
        text = written(FORMATS[name], tool, arguments)
        if text is None:
            continue
        constraint = compiler.compile(grammar_of(name, [tool]))
        place = follow(constraint, text.encode())
        assert place is None, (text, arguments, text.encode()[:place], tool)
        events = read(name, [tool], text, rng.randint(1, 9))
        (got,) = arguments_of(events)
        assert exact(got) == exact(json.dumps(arguments)), (text, arguments)
        assert isinstance(events[-1], Ended)
        cut = text[: rng.randint(0, len(text))]
        for begun in arguments_of(read(name, [tool], cut, rng.randint(1, 9), is_cut=True)):
            assert got.startswith(begun)
        num_read += 1


def exact(text: str) -> Any:
    return json.loads(text, parse_float=str)


def follow(constraint: Constraint, text: bytes) -> int | None:
    """Where the grammar forbids the text to go on."""
    for place, byte in enumerate(text):
        mask = constraint.allowed()
        if mask is not None and not mask[byte]:
            return place
        constraint.accept(byte)
    return None


@pytest.mark.parametrize("name", FORMATS)
def test_what_the_grammar_lets_be_written_can_be_read(compiler: GrammarCompiler, name: str) -> None:
    rng = random.Random(name)
    for _ in range(NUM_CALLS):
        tool, _ = random_call(rng)
        constraint = compiler.prepare(grammar_of(name, [tool]))()
        drawn = draw(rng, constraint)
        try:
            text = (drawn or b"").decode()
        except UnicodeDecodeError:
            continue
        if not text:
            continue
        validator = jsonschema_rs.validator_for(tool["function"]["parameters"])
        events = read(name, [tool], text, rng.randint(1, 9))
        assert isinstance(events[-1], Ended), text
        for got in arguments_of(events):
            validator.validate(json.loads(got))


def draw(rng: random.Random, constraint: Any, longest: int = 400) -> bytes | None:
    """A random text of the grammar, mostly of what has a meaning; ``None`` if it became long."""
    text = b""
    while len(text) < longest:
        allowed = np.flatnonzero(constraint.allowed()[:256])
        if constraint.is_complete and (rng.random() < 0.5 or not len(allowed)):
            return text
        few = [byte for byte in allowed if byte in STRUCTURE] if len(allowed) > 40 else []
        byte = int(rng.choice(few if few and rng.random() < 0.9 else list(allowed)))
        constraint.accept(byte)
        text += bytes([byte])
    return None


def one_argument(schema: Any) -> Tools:
    parameters = {"type": "object", "properties": {"x": schema}, "required": ["x"]}
    return [{"type": "function", "function": {"name": "f", "parameters": parameters}}]


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "integer"}, "7", '<|"|>7<|"|>'),
        ({"type": "number"}, "7.5", '<|"|>7<|"|>'),
        ({"type": "array", "items": {"type": "null"}, "maxItems": 1}, "[null]", "[null,null]"),
        ({"type": "array", "items": {"type": "null"}, "maxItems": 0}, "[]", "[null]"),
        ({"type": "string", "format": "date"}, '<|"|>2024-02-29<|"|>', '<|"|>2023-02-29<|"|>'),
    ],
)
def test_gemmas_values_are_held_to_their_types_and_bounds(
    compiler: GrammarCompiler, schema: Any, good: str, bad: str
) -> None:
    grammar = grammar_of("gemma4", one_argument(schema))
    assert follow(compiler.compile(grammar), f"call:f{{x:{good}}}<tool_call|>".encode()) is None
    assert follow(compiler.compile(grammar), f"call:f{{x:{bad}}}<tool_call|>".encode()) is not None


class Prefixing(FakeTokenizer):
    """As SentencePiece does, it puts a blank before each text."""

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return super().encode(f" {text}", add_special=add_special, parse_special=parse_special)


def test_a_grammar_has_the_texts_themselves_not_those_of_their_tokens() -> None:
    assert marker("</tool_call>", Prefixing()) == '"</tool_call>"'
