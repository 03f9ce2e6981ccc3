"""What of a schema grammars can hold, and what is said to be left out."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.contract.schemas import loosen


@pytest.mark.parametrize(
    ("schema", "kept", "places"),
    [
        ({"type": "array", "uniqueItems": True}, {"type": "array"}, ["/uniqueItems"]),
        ({"type": "array", "uniqueItems": False}, {"type": "array"}, []),
        ({"type": "string", "format": "regex"}, {"type": "string"}, ["/format"]),
        ({"type": "string", "format": "uuid"}, {"type": "string", "format": "uuid"}, []),
        ({"type": "string", "pattern": "(?=a)b"}, {"type": "string"}, ["/pattern"]),
        ({"if": {}, "then": {}, "else": {}}, {}, ["/else", "/if", "/then"]),
        ({"items": {"not": {"type": "null"}}}, {"items": {}}, ["/items/not"]),
        ({"not": {}}, {"not": {}}, []),
        ({"properties": {"not": {"type": "null"}}}, {"properties": {"not": {"type": "null"}}}, []),
        ({"const": 1 << 60}, {}, ["/const"]),
        ({"minimum": (1 << 53) + 1}, {"minimum": float((1 << 53) + 2)}, []),
        ({"maximum": (1 << 53) + 1}, {"maximum": float(1 << 53)}, []),
        (
            {"minProperties": 1, "properties": {"a": {}}},
            {"properties": {"a": {}}},
            ["/minProperties"],
        ),
        (
            {"$defs": {"a/b": {"anyOf": [{}, {"enum": [1 << 60]}], "contains": {}}}},
            {"$defs": {"a/b": {"anyOf": [{}, {}]}}},
            ["/$defs/a~1b/anyOf/1/enum", "/$defs/a~1b/contains"],
        ),
        ({"$ref": "#"}, {}, ["/$ref"]),
        (True, {}, []),
    ],
)
def test_only_what_narrows_and_cannot_be_held_is_left_out(
    schema: Any, kept: Any, places: list[str]
) -> None:
    assert loosen(schema) == (kept, places)


def test_one_of_is_named_only_where_two_could_fit() -> None:
    apart = [{"type": "string"}, {"type": "null"}]
    assert loosen({"oneOf": apart}) == ({"anyOf": apart}, [])
    kinds = [{"properties": {"kind": {"const": name}}, "required": ["kind"]} for name in ("a", "b")]
    assert loosen({"oneOf": kinds}).places == []
    assert loosen({"oneOf": [{"type": "number"}, {"type": "integer"}]}).places == ["/oneOf"]


def test_a_schema_that_refers_to_itself_further_down_is_kept() -> None:
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}}}
    assert loosen(tree) == (tree, [])
