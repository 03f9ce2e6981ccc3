"""Argument values in formats with bare strings: how a text is read, and how a value is written.

For a parameter of type string, the text is the value. If it also has other types, JSON of those
types is read as JSON; a string that would be misread is written as a JSON string.
"""

from __future__ import annotations

import json
import re
from enum import Enum, auto
from typing import Any

from workers.markup.arguments.schema_types import Document, type_of

_LITERALS = {"True": "true", "False": "false", "None": "null"}
_STRING_LITERAL = re.compile(r'\s*"([^"\\]|\\.)*"\s*', re.DOTALL)


class Kind(Enum):
    """How the values of a parameter are written."""

    TEXT = auto()
    JSON = auto()
    MIXED = auto()


def kind_of(document: Document, schema: Any) -> Kind:
    """Whether the schema allows only strings, no strings, or both."""
    types = document.types_of(schema)
    if "string" not in types:
        return Kind.JSON if types else Kind.MIXED
    return Kind.TEXT if types == {"string"} else Kind.MIXED


def read_value(document: Document, schema: Any, text: str) -> str:
    """The JSON text of the value that ``text`` means."""
    kind = kind_of(document, schema)
    if kind is Kind.TEXT:
        return dumps(text)
    bare = text.strip()
    if kind is Kind.JSON:
        bare = _LITERALS.get(bare, bare)
        return bare if is_json(bare) else dumps(_json_or_text(bare))
    return _read_mixed(document.types_of(schema), text, bare)


def write_value(document: Document, schema: Any, value: Any) -> str:
    """The text that ``read_value`` reads as this value."""
    if not isinstance(value, str):
        return dumps(value)
    is_nested = bool(document.types_of(schema) & {"array", "object"})
    begins_nested = is_nested and value.strip()[:1] in ("[", "{")
    if kind_of(document, schema) is Kind.TEXT or (
        read_value(document, schema, value) == dumps(value) and not begins_nested
    ):
        return value
    return dumps(value)


def looks_like_json(text: str) -> bool:
    """Whether a string could be read as another value or as a JSON string."""
    bare = text.strip()
    return bare[:1] in ("[", "{", '"') or is_json(bare)


def _read_mixed(types: frozenset[str], text: str, bare: str) -> str:
    if not is_json(bare):
        return dumps(text)
    value = _loads(bare)
    if isinstance(value, str):
        return dumps(value) if looks_like_json(value) else dumps(text)
    name = type_of(value)
    is_allowed = name in types or (name == "number" and "integer" in types and value % 1 == 0)
    return bare if is_allowed or "string" not in types else dumps(text)


def is_json(text: str) -> bool:
    """Whether the text is standard JSON and valid Unicode."""
    try:
        _loads(text)
        text.encode()
    except (ValueError, RecursionError):
        return False
    return True


def _loads(text: str) -> Any:
    """Decode standard JSON: no NaN, integers of any length."""

    def refuse(word: str) -> Any:
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse, parse_int=_Integer)


def _json_or_text(text: str) -> Any:
    """The value of a text that should be JSON; line breaks in strings are accepted."""
    try:
        value = json.loads(text, strict=False)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return value


class _Integer(int):
    """Converts only 20 digits: Python limits the length, and only the type matters here."""

    def __new__(cls, text: str) -> _Integer:
        return super().__new__(cls, text[:20] or "0")


def dumps(value: Any) -> str:
    """JSON text; raises ``ValueError`` for what JSON has no word for."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
