"""Grammars: what compiles, what is refused by name, and the masks that follow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.contract.errors import GrammarError, InvalidRequestError
from jobs.contract.grammars import Grammar, GrammarKind
from tests.helpers.grammars import GETS_LOST, LETTERS, RUNS_FULL
from workers.engines.base import EngineOptions
from workers.engines.fake import open_fake
from workers.text.grammar import Constraint, GrammarCompiler


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    engine = open_fake(Path("fake"), EngineOptions(), lambda fraction: None)
    return GrammarCompiler(engine.tokenizer)


def walk(compiler: GrammarCompiler, constraint: Constraint, text: str) -> bool:
    """Whether the grammar lets ``text`` through, and may end after it."""
    for token_id in compiler._tokenizer.encode(text, add_special=False, parse_special=False):
        if not constraint.allowed()[token_id]:
            return False
        constraint.accept(token_id)
    return constraint.is_complete


@pytest.mark.parametrize(
    ("kind", "source", "good", "bad"),
    [
        ("json_object", "", '{"a": [1, true]}', "[1]"),
        ("json_schema", '{"type": "integer", "minimum": 3}', "12", "2"),
        ("json_schema", '{"enum": ["a", 1]}', '"a"', '"b"'),
        ("json_schema", '{"type": "array", "items": {"$ref": "#"}}', "[[],[]]", "{}"),
        ("json_schema", '{"type": "array", "uniqueItems": true}', "[1,1]", "{}"),
        ("json_schema", '{"type": "object", "propertyNames": {"maxLength": 1}}', '{"ab":1}', "1"),
        ("json_schema", '{"$ref": "#"}', '{"a":1}', "a"),
        ("regex", "[a-c]+", "abc", "abd"),
        ("choice", '["yes", "no\\n\\"quoted\\""]', 'no\n"quoted"', "maybe"),
        ("lark", 'start: "x" /[0-9]+/', "x12", "12"),
        ("gbnf", 'root ::= "a" | "b" root', "bba", "c"),
    ],
)
def test_what_fits_passes_and_nothing_else(
    compiler: GrammarCompiler, kind: str, source: str, good: str, bad: str
) -> None:
    grammar = Grammar(GrammarKind(kind), source)
    assert walk(compiler, compiler.compile(grammar), good)
    assert not walk(compiler, compiler.compile(grammar), bad)


@pytest.mark.parametrize(
    ("kind", "source", "said"),
    [
        ("json_schema", '{"type": "foo"}', "foo"),
        ("json_schema", '{"enum": []}', "empty"),
        ("json_schema", '{"type":', "column"),
        ("json_schema", "[1]", "object"),
        ("json_schema", '{"$ref": "http://127.0.0.1/schema.json"}', "schema.json"),
        ("json_schema", "[" * 100_000, ""),
        ("regex", "(a", "regex"),
        ("lark", "start: missing", "missing"),
        ("gbnf", "root := x", "::="),
        ("gbnf", "root ::= missing", "missing"),
        ("gbnf", "(" * 5000, ""),
        ("choice", "[]", "list"),
        ("choice", '[""]', "not empty"),
        ("choice", '{"a": 1}', "list"),
        ("regex", "a" * 300_000, "longer"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    compiler: GrammarCompiler, kind: str, source: str, said: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        compiler.compile(Grammar(GrammarKind(kind), source, param="grammar"))
    assert caught.value.param == "grammar"
    assert said in caught.value.message


def test_when_nothing_may_follow_only_the_end_may(compiler: GrammarCompiler) -> None:
    constraint = compiler.compile(Grammar(GrammarKind.CHOICE, '["ab"]'))
    assert walk(compiler, constraint, "ab")
    ends = compiler._tokenizer.end_ids
    assert {int(i) for i in constraint.allowed().nonzero()[0]} == set(ends)
    for token_id in ends:
        constraint.accept(token_id)
    assert set(constraint.allowed().nonzero()[0].tolist()) == set(ends)


def test_white_space_is_bounded(compiler: GrammarCompiler) -> None:
    grammar = Grammar(GrammarKind.JSON_SCHEMA, json.dumps({"type": "array", "items": {}}))
    assert walk(compiler, compiler.compile(grammar), "[ 1, 2]")
    assert not walk(compiler, compiler.compile(grammar), "[   1]")


def test_compiled_grammars_start_anew_each_time(compiler: GrammarCompiler) -> None:
    grammar = Grammar(GrammarKind.REGEX, "abc")
    for _ in range(3):
        assert walk(compiler, compiler.compile(grammar), "abc")


def follow(constraint: Constraint, text: bytes) -> None:
    """Write the text, of which each byte has to be allowed."""
    for byte in text:
        assert constraint.allowed()[byte]
        constraint.accept(byte)


@pytest.mark.parametrize("grammar", [RUNS_FULL, GETS_LOST], ids=["by a token", "by a mask"])
def test_a_grammar_that_breaks_down_is_an_error_and_no_end_of_the_text(
    compiler: GrammarCompiler, grammar: Grammar
) -> None:
    constraint = compiler.compile(grammar)
    with pytest.raises(GrammarError) as caught:
        follow(constraint, LETTERS)
    assert caught.value.param == "grammar"
    assert "too ambiguous or too large" in caught.value.message
    assert "<state>" not in caught.value.message
    for ask in (constraint.allowed, lambda: constraint.accept(97), lambda: constraint.is_complete):
        with pytest.raises(GrammarError):
            ask()
    with pytest.raises(GrammarError):
        constraint.accept_all([97])


def test_a_grammar_that_breaks_down_in_tokens_given_at_once_is_an_error(
    compiler: GrammarCompiler,
) -> None:
    with pytest.raises(GrammarError):
        compiler.compile(RUNS_FULL).accept_all(list(LETTERS))


def test_tokens_that_a_grammar_forbids_are_not_taken_and_do_no_harm(
    compiler: GrammarCompiler,
) -> None:
    constraint = compiler.compile(Grammar(GrammarKind.REGEX, "abc"))
    assert not constraint.accept_all(list(b"ax"))
    assert constraint.accept_all(list(b"abc"))
    assert constraint.is_complete


def test_a_token_that_was_not_allowed_is_an_error(compiler: GrammarCompiler) -> None:
    constraint = compiler.compile(Grammar(GrammarKind.REGEX, "abc", "regex"))
    with pytest.raises(GrammarError) as caught:
        constraint.accept(ord("b"))
    assert caught.value.param == "regex"


def test_a_broken_grammar_leaves_the_next_text_of_the_same_one_alone(
    compiler: GrammarCompiler,
) -> None:
    with pytest.raises(GrammarError):
        compiler.compile(RUNS_FULL).accept_all(list(LETTERS))
    follow(compiler.compile(RUNS_FULL), b"ab")


def test_large_schemas_have_room_in_the_limits(compiler: GrammarCompiler) -> None:
    properties = {f"property_{i}": {"type": ["string", "null"]} for i in range(1000)}
    optional = {"type": "object", "properties": properties, "additionalProperties": False}
    choices = {"enum": [f"choice number {i}" for i in range(1000)]}
    nested: dict[str, object] = {"type": "integer"}
    for depth in range(8):
        nested = {"type": "object", "properties": {f"level_{depth}": nested}}
    union = {"type": "array", "items": {"anyOf": [
        {"type": "object", "properties": {"a": {"type": "string"}, f"b{i}": {}},
         "required": ["a", f"b{i}"], "additionalProperties": False} for i in range(80)
    ]}}  # fmt: skip
    texts = [
        (optional, '{"property_0": "a", "property_999": null}'),
        (choices, '"choice number 999"'),
        (nested, '{"level_7": {"level_6": {"level_5": {}}}}'),
        (union, '[{"a": "x", "b79": {"c": [1, 2]}}, {"a": "y", "b0": 1}]'),
    ]
    for schema, text in texts:
        grammar = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(schema))
        assert walk(compiler, compiler.compile(grammar), text)
