"""Each way of writing calls: what its grammar allows its reader gives back, cut or whole."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.helpers.call_pairs import check_drawn, check_written, follow, grammar_of
from workers.engines.fake import FakeTokenizer
from workers.markup.calls.format import Tools
from workers.markup.calls.formats import FORMATS
from workers.markup.calls.rules import marker
from workers.text.grammar import GrammarCompiler

NUM_CALLS = 12  # the proof "call-formats" tries 10 000


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    return GrammarCompiler(FakeTokenizer())


@pytest.mark.parametrize("name", FORMATS)
def test_arguments_come_back_as_they_were_meant(compiler: GrammarCompiler, name: str) -> None:
    rng = random.Random(name)
    for _ in range(NUM_CALLS):
        check_written(rng, compiler, name)


@pytest.mark.parametrize("name", FORMATS)
def test_what_the_grammar_lets_be_written_can_be_read(compiler: GrammarCompiler, name: str) -> None:
    rng = random.Random(name)
    for _ in range(NUM_CALLS):
        check_drawn(rng, compiler, name)


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
