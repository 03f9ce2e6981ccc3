"""What the header of loosened schemas says, whatever the names in a schema are."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

import pytest

from api.execution.loosened_schemas import HEADER, loosened_header
from jobs.contract.grammars import Grammar, GrammarKind
from tests.helpers.samples import generate


def header_of(schema: Any) -> str:
    grammar = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(schema), "response_format")
    return loosened_header(generate(grammar=grammar)).get(HEADER, "")


def test_a_schema_that_can_be_held_has_no_header() -> None:
    assert header_of({"type": "object", "properties": {"not": {}}}) == ""


@pytest.mark.parametrize("name", ["a/b~c", "a, b", "é😀", "a\r\nX-Evil: 1", "\x00%2F#", "\ud800"])
def test_any_name_of_a_property_is_safe_in_the_header_and_comes_back(name: str) -> None:
    found = header_of({"properties": {name: {"uniqueItems": True}}})
    assert found.isascii()
    assert found.isprintable()
    assert ", " not in found
    step = unquote(found.partition("#")[2]).split("/")[2]
    known = name.encode(errors="replace").decode()
    assert step.replace("~1", "/").replace("~0", "~") == known


def test_the_header_has_a_bound_and_counts_what_it_leaves_out() -> None:
    properties: Any = {f"property-{n}": {"contains": {}} for n in range(500)}
    found = header_of({"properties": properties})
    assert len(found) < 1100
    *places, rest = found.split(", ")
    assert places[0] == "response_format#/properties/property-0/contains"
    assert rest == f"and {500 - len(places)} more"


def test_a_long_place_keeps_its_keyword() -> None:
    found = header_of({"properties": {"a" * 5000: {"contains": {}}}})
    assert len(found) < 300
    assert found.endswith(".../contains")
