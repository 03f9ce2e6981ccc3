"""Numbers in constrained JSON come to an end."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jobs.contract.grammars import Grammar, GrammarKind
from workers.engines.fake import FakeTokenizer
from workers.text.grammar import Constraint, GrammarCompiler
from workers.text.number_guard import MAX_DIGITS, DigitTokens


def constraint_of(schema: object) -> Constraint:
    return GrammarCompiler(FakeTokenizer()).compile(
        Grammar(GrammarKind.JSON_SCHEMA, json.dumps(schema))
    )


def write(constraint: Constraint, liked: str, num_tokens: int = 200) -> str:
    """What a model writes that likes these characters most, in this order."""
    written = ""
    for _ in range(num_tokens):
        mask = constraint.allowed()
        if mask[list(FakeTokenizer.end_ids)].any():
            break
        favourites = [byte for byte in liked.encode() if mask[byte]]
        byte = favourites[0] if favourites else int(np.flatnonzero(mask)[0])
        written += chr(byte)
        constraint.accept(byte)
    return written


@pytest.mark.parametrize(
    "value",
    [
        {"type": "number"},
        {"type": "integer"},
        {"type": "number", "minimum": 1, "exclusiveMaximum": 2},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        {"type": "integer", "maximum": 9},
    ],
)
@pytest.mark.parametrize("liked", ["10.", "0.1", "-10", "1e0", "9"])
def test_a_model_that_likes_digits_comes_to_an_end(value: object, liked: str) -> None:
    properties = {"properties": {"a": value}, "required": ["a"], "additionalProperties": False}
    schema = {"type": "object", **properties}
    text = write(constraint_of(schema), liked)
    assert isinstance(json.loads(text)["a"], int | float)
    assert len(text) < 3 * MAX_DIGITS


def test_digits_in_a_text_are_text() -> None:
    schema = {"type": "string", "pattern": "^[0-9]*x$"}
    assert write(constraint_of(schema), '"0', num_tokens=100) == '"' + "0" * 99


def test_a_quote_inside_a_text_does_not_end_it() -> None:
    constraint = constraint_of({"type": "array", "items": {"type": "string"}})
    for byte in b'["a\\"' + b"1" * 100:
        assert constraint.allowed()[byte]
        constraint.accept(byte)


def test_tokens_that_begin_with_a_digit_are_told_by_their_first_byte() -> None:
    digits = DigitTokens(FakeTokenizer())
    assert [int(i) for i in np.flatnonzero(digits.any)] == list(b"0123456789")
    assert [int(i) for i in np.flatnonzero(digits.zero)] == list(b"0")
