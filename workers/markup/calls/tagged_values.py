"""The grammar of one argument in a tag: only values that the readers of bare values distinguish.

Strings and other values without a rule of their own share one terminal, because of two terminals a
lexer would take the longer one. A value with its own rule begins differently from all strings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workers.markup.arguments.schema_types import Document, choices_of, type_of, with_document
from workers.markup.arguments.text_patterns import text_pattern
from workers.markup.arguments.values import Kind, kind_of, write_value
from workers.markup.calls.rules import Rules, escaped, quoted

_SCALARS = {
    "null": "null",
    "boolean": "true|false",
    "integer": "-?(?:0|[1-9][0-9]{0,31})",
    "number": r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?",
}
_BEGINNINGS = {
    "null": "null",
    "boolean": "true|false",
    "integer": "-?[0-9]",
    "number": "-?[0-9]",
    "array": r"\[",
    "object": r"\{",
}
_BLANKS = r"[ \n\t\r]*"
# Such a JSON string is read as the string it encodes, not as bare text.
_LITERAL = rf'{_BLANKS}"{_BLANKS}(?:null|true|false|-?[0-9]|[\[{{]|\\)(?s:.*)"{_BLANKS}'
_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_ALTERNATIVES = ("anyOf", "oneOf")
_MAX_DEPTH = 8

Way = tuple[bool, str]


def value_rule(
    rules: Rules,
    document: Document,
    schema: Any,
    end: str,
    *,
    is_type_marked: bool,
    has_cdata: bool,
) -> list[Way]:
    """The ways to write a value followed by ``end``: (whether it is JSON, body of the rule).

    ``is_type_marked``: the tag shows whether the value is JSON.
    """
    schema = document.resolved(schema)
    if (choices := choices_of(schema)) is not None:
        return [_choice(rules, document, schema, one, end, is_type_marked) for one in choices]
    types = document.types_of(schema) - {"string"}
    kind = kind_of(document, schema)
    if kind is Kind.TEXT:
        types = frozenset()
    leaves = list(_leaves(document, schema))
    has_rules = is_type_marked or has_cdata or kind is Kind.JSON
    own = types if has_rules else _constrained(document, leaves)
    ways: list[Way] = []
    if own & types:
        body = _json(rules, document, schema, own & types, is_all=kind is Kind.JSON)
        ways.append((True, f"{body} {rules.mark(end)}"))
    if kind is not Kind.JSON:
        texts = _texts(rules, document, schema, leaves, is_apart=is_type_marked or has_cdata)
        scalars = "|".join(_SCALARS[name] for name in sorted(types - own))
        unlike = frozenset() if is_type_marked else own & types
        ways.append((False, _bare(rules, texts, scalars, unlike, end, has_cdata)))
    return ways


def _choice(
    rules: Rules, document: Document, schema: Any, value: Any, end: str, is_type_marked: bool
) -> Way:
    if isinstance(value, str) and is_type_marked:
        return False, f"{rules.mark(value + end)}"
    text = write_value(document, schema, value)
    return not isinstance(value, str), f"{quoted(text)} {rules.mark(end)}"


def _json(
    rules: Rules, document: Document, schema: Any, types: frozenset[str], *, is_all: bool
) -> str:
    """A rule for the schema's values of these types."""
    whole: dict[str, Any] = schema
    if not is_all:
        named = {"type": sorted(types)}
        whole = {"allOf": [schema, named]} if _says_something(schema) else named
    return rules.json("json", with_document(document, whole))


def _says_something(schema: dict[str, Any]) -> bool:
    return bool(schema.keys() - {"description", "title", "default", "examples"})


def _texts(
    rules: Rules, document: Document, schema: Any, leaves: list[dict[str, Any]], *, is_apart: bool
) -> str:
    """A terminal for all strings that the schema allows, in their written form."""
    patterns: list[str] = []
    choices: list[str] = []
    for leaf in leaves:
        if (listed := choices_of(leaf)) is not None:
            texts = [one for one in listed if isinstance(one, str)]
            written = texts if is_apart else [write_value(document, schema, one) for one in texts]
            choices += map(escaped, written)
        elif "string" in document.types_of(leaf):
            patterns.append(text_pattern(leaf))
    if not patterns or ".*" in patterns:
        return f"/(?s:{'|'.join(['.*'] if patterns else choices or ['.*'])})/"
    is_mixed = kind_of(document, schema) is Kind.MIXED and not is_apart
    free = f"/(?s:{'|'.join(patterns)})/" + (f" & ~/{_LITERAL}/" if is_mixed else "")
    listed_too = f" | /(?s:{'|'.join(choices)})/" if choices else ""
    return f"{rules.terminal('free', free)}{listed_too}"


def _bare(
    rules: Rules, texts: str, scalars: str, own: frozenset[str], end: str, has_cdata: bool
) -> str:
    whole = rules.terminal("any", f"{texts} | /{scalars}/" if scalars else texts)
    if has_cdata:
        return f'"<![CDATA[" {rules.text("cdata", whole, "]]>" + end)}'
    unlike = "|".join(_BEGINNINGS[name] for name in sorted(own))
    pattern = rf"{_BLANKS}(?:{unlike})(?s:.*)" if unlike else ""
    return rules.text("text", whole, end, pattern)


def _constrained(document: Document, leaves: list[dict[str, Any]]) -> frozenset[str]:
    """The types whose values need their own rule."""
    found = {"array", "object"}
    for leaf in leaves:
        if (choices := choices_of(leaf)) is not None:
            found |= {type_of(one) for one in choices}
        elif leaf.keys() & (_BOUNDS | {"allOf"}):
            found |= document.types_of(leaf) & {"integer", "number"}
    is_number = found & {"integer", "number"}
    return frozenset(found | ({"integer", "number"} if is_number else set())) - {"string"}


def _leaves(document: Document, schema: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """The schema's alternatives, and theirs, down to those without alternatives."""
    schema = document.resolved(schema)
    key = next((key for key in _ALTERNATIVES if isinstance(schema.get(key), list)), None)
    if key is None or depth > _MAX_DEPTH:
        yield schema
        return
    beside = {name: value for name, value in schema.items() if name != key}
    for one in schema[key]:
        yield from _leaves(document, {**beside, **document.resolved(one)}, depth + 1)
