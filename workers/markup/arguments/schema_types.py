"""Which kinds of JSON values a schema allows, through references and alternatives."""

from __future__ import annotations

import json
from typing import Any

from jobs.contract.schemas import target_of

ALL_TYPES = frozenset({"string", "integer", "number", "boolean", "null", "array", "object"})
_MAX_DEPTH = 16

Schema = dict[str, Any]


class Document:
    """The schema of a tool's parameters, which resolves its references."""

    def __init__(self, root: Any) -> None:
        self.root: Schema = root if isinstance(root, dict) else {}

    @property
    def properties(self) -> dict[str, Any]:
        found = self.resolved(self.root).get("properties")
        return found if isinstance(found, dict) else {}

    @property
    def required(self) -> list[str]:
        found = self.resolved(self.root).get("required")
        return [key for key in found if isinstance(key, str)] if isinstance(found, list) else []

    def resolved(self, schema: Any) -> Schema:
        """The schema with its own ``$ref`` replaced; not those of its parts."""
        for _ in range(_MAX_DEPTH):
            if not isinstance(schema, dict):
                return {}
            if not isinstance(schema.get("$ref"), str):
                return schema
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            target = target_of(schema["$ref"], self.root)
            schema = {**target, **beside} if isinstance(target, dict) else beside
        return {}

    def types_of(self, schema: Any, depth: int = 0) -> frozenset[str]:
        """The JSON types that the schema allows; all types if it does not restrict them."""
        if depth > _MAX_DEPTH or not isinstance(schema, dict):
            return ALL_TYPES
        schema = self.resolved(schema)
        found = _named(schema)
        if (choices := choices_of(schema)) is not None:
            found &= frozenset(map(type_of, choices)) | _integers(choices)
        for key in ("anyOf", "oneOf"):
            if isinstance(schema.get(key), list):
                each = (self.types_of(one, depth + 1) for one in schema[key])
                found &= frozenset().union(*each)
        if isinstance(schema.get("allOf"), list):
            for one in schema["allOf"]:
                found &= self.types_of(one, depth + 1)
        return found


def with_document(document: Document, schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with the whole document in ``$defs``, so that its references stay valid."""
    if '"$ref"' not in json.dumps(schema):
        return schema
    root = {key: value for key, value in document.root.items() if key != "x-guidance"}
    return {**_moved(schema), "$defs": {"document": _moved(root)}}


def _moved(schema: Any) -> Any:
    """The schema with its references changed to the document's new place."""
    if isinstance(schema, list):
        return [_moved(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(value) for key, value in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = "#/$defs/document" + reference[1:]
    return moved


def choices_of(schema: Schema) -> list[Any] | None:
    """The values of ``const`` or ``enum``, if the schema has one."""
    if "const" in schema:
        return [schema["const"]]
    return schema["enum"] if isinstance(schema.get("enum"), list) else None


def type_of(value: Any) -> str:
    """The JSON schema type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    names = ((int, "integer"), (float, "number"), (str, "string"), (list, "array"))
    return next((name for kind, name in names if isinstance(value, kind)), "object")


def _named(schema: Schema) -> frozenset[str]:
    given = schema.get("type")
    names = [given] if isinstance(given, str) else given if isinstance(given, list) else None
    if names is None:
        return ALL_TYPES
    found = frozenset(name for name in names if isinstance(name, str))
    found |= {"integer"} if "number" in found else set()
    return found | ({"null"} if schema.get("nullable") is True else set())


def _integers(choices: list[Any]) -> frozenset[str]:
    """Both number types if there is a number: 1 may be written as 1.0, and 1.0 as 1."""
    is_number = any(type_of(one) in ("integer", "number") for one in choices)
    return frozenset({"integer", "number"}) if is_number else frozenset()
