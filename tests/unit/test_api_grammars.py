"""The ways in which clients ask for a text's form."""

from __future__ import annotations

from typing import Any

import pytest

from api.dialects.openai.generation.grammars import to_grammar
from jobs.contract.errors import InvalidRequestError
from jobs.contract.grammars import Grammar, GrammarKind

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"é": {"type": "integer"}}}
SCHEMA_TEXT = '{"type": "object", "properties": {"\\u00e9": {"type": "integer"}}}'


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"response_format": None, "grammar": None, "choice": None}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Grammar(GrammarKind.JSON_OBJECT)),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
            Grammar(GrammarKind.JSON_SCHEMA, SCHEMA_TEXT),
        ),
        (
            {"response_format": {"type": "json_schema", "schema": SCHEMA}},
            Grammar(GrammarKind.JSON_SCHEMA, SCHEMA_TEXT),
        ),
        (
            {"response_format": {"type": "json_object", "schema": SCHEMA}},
            Grammar(GrammarKind.JSON_SCHEMA, SCHEMA_TEXT),
        ),
        ({"json_schema": SCHEMA}, Grammar(GrammarKind.JSON_SCHEMA, SCHEMA_TEXT, "json_schema")),
        ({"regex": "a+"}, Grammar(GrammarKind.REGEX, "a+", "regex")),
        ({"choice": ["a", "b"]}, Grammar(GrammarKind.CHOICE, '["a", "b"]', "choice")),
        ({"grammar": 'root ::= "a"'}, Grammar(GrammarKind.GBNF, 'root ::= "a"', "grammar")),
        ({"grammar": 'start: "a"'}, Grammar(GrammarKind.LARK, 'start: "a"', "grammar")),
        ({"grammar": "", "regex": "", "guided_json": ""}, None),
        ({"guided_json": SCHEMA}, Grammar(GrammarKind.JSON_SCHEMA, SCHEMA_TEXT, "guided_json")),
        (
            {"guided_json": SCHEMA_TEXT},
            Grammar(GrammarKind.JSON_SCHEMA, SCHEMA_TEXT, "guided_json"),
        ),
        ({"guided_regex": "a+"}, Grammar(GrammarKind.REGEX, "a+", "guided_regex")),
        ({"guided_choice": ["a"]}, Grammar(GrammarKind.CHOICE, '["a"]', "guided_choice")),
        (
            {"guided_grammar": 'root ::= "a"'},
            Grammar(GrammarKind.GBNF, 'root ::= "a"', "guided_grammar"),
        ),
        (
            {"structured_outputs": {"choice": ["a"], "json": None, "disable_fallback": True}},
            Grammar(GrammarKind.CHOICE, '["a"]', "structured_outputs.choice"),
        ),
        (
            {"structured_outputs": {"json_object": True}},
            Grammar(GrammarKind.JSON_OBJECT, "", "structured_outputs.json_object"),
        ),
        ({"format": "json"}, Grammar(GrammarKind.JSON_OBJECT, "", "format")),
        ({"format": SCHEMA}, Grammar(GrammarKind.JSON_SCHEMA, SCHEMA_TEXT, "format")),
        ({"regex": "a+", "guided_regex": "a+"}, Grammar(GrammarKind.REGEX, "a+", "regex")),
    ],
)
def test_each_becomes_a_grammar(fields: dict[str, Any], expected: Grammar | None) -> None:
    assert to_grammar(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"regex": "a", "choice": ["a"]}, "regex"),
        ({"grammar": "start: a", "response_format": {"type": "json_object"}}, "grammar"),
        ({"response_format": {"type": "json_schema", "json_schema": 3}}, "response_format"),
        ({"response_format": {"type": "json_object", "schema": 123}}, "response_format"),
        ({"json_schema": {}, "regex": "a"}, "regex"),
        ({"response_format": {"type": ["text"]}}, "response_format"),
        ({"response_format": {}}, "response_format"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": "[]"}, "guided_json"),
        ({"guided_regex": "a", "regex": "b"}, "guided_regex"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
        ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs"),
        ({"structured_outputs": {"regex": 5}}, "structured_outputs"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs"),
        ({"format": "yaml"}, "format"),
    ],
)
def test_what_says_too_much_or_nothing_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        to_grammar(**fields)
    assert (caught.value.param or "").split(".")[0] == param
