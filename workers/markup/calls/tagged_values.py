"""The grammar of one argument in a tag: what the readers of bare values can tell apart."""

from __future__ import annotations

from typing import Any

from workers.markup.calls.rules import Rules, quoted
from workers.markup.calls.schema_types import ALL_TYPES, Document, choices_of, with_document
from workers.markup.calls.text_patterns import text_pattern
from workers.markup.calls.values import Kind, kind_of, write_value

# A text that could be read as something else stands as a JSON string.
_TEXT_LIKE_JSON = (
    r'"[ ]*(?:null|true|false|-?[0-9][0-9.eE+\-]*'
    r'|(?:[\[{]|\\")(?:[^"\\\x00-\x1f]|\\["\\\/bfnrt])*)[ ]*"'
)
_LIKE_JSON = r"[ \n\t\r]*(?:[\[{\"](?s:.*)|(?:null|true|false|-?[0-9][0-9.eE+\-]*)[ \n\t\r]*)"

Way = tuple[bool, str]


def value_rule(
    rules: Rules, document: Document, schema: Any, end: str, *, is_told: bool, has_cdata: bool
) -> list[Way]:
    """The ways to write a value and ``end``: whether as JSON, and the rule's body.

    ``is_told``: the tag says which it is.
    """
    schema = document.resolved(schema)
    kind = kind_of(document, schema)
    texts = choices_of(schema)
    if texts is not None:
        return [_choice(rules, document, schema, one, end, is_told) for one in texts]
    ways: list[Way] = []
    if kind is not Kind.TEXT:
        ways.append((True, f"{_json_rule(rules, document, schema, kind)} {rules.mark(end)}"))
    if kind is not Kind.JSON:
        ways += [(False, one) for one in _texts(rules, document, schema, end, has_cdata)]
    if kind is Kind.MIXED and not is_told and _is_free(document, schema):
        name = rules.add("quoted", f"/{_TEXT_LIKE_JSON}/")
        ways.append((False, f"{name} {rules.mark(end)}"))
    return ways


def _choice(
    rules: Rules, document: Document, schema: Any, value: Any, end: str, is_told: bool
) -> Way:
    if isinstance(value, str) and is_told:
        return False, f"{rules.mark(value + end)}"
    text = write_value(document, schema, value)
    return not isinstance(value, str), f"{quoted(text)} {rules.mark(end)}"


def _json_rule(rules: Rules, document: Document, schema: Any, kind: Kind) -> str:
    """The values that are no bare text."""
    whole: dict[str, Any] = {**schema}
    if kind is Kind.MIXED:
        types = sorted(document.types_of(schema) - {"string"})
        others = (
            {"type": types}
            if types and types != sorted(ALL_TYPES - {"string"})
            else {"type": sorted(ALL_TYPES - {"string", "integer"})}
        )
        whole = {"allOf": [whole, others]} if _has_content(whole) else others
    return rules.json("json", with_document(document, whole))


def _has_content(schema: dict[str, Any]) -> bool:
    return bool(schema.keys() - {"description", "title", "default", "examples"})


def _texts(rules: Rules, document: Document, schema: Any, end: str, has_cdata: bool) -> list[str]:
    """Bare texts, in each of the alternatives that have some."""
    found: list[str] = []
    for one in _alternatives(document, schema):
        if (choices := choices_of(one)) is not None:
            written = [c for c in choices if isinstance(c, str)]
            found += [
                f"{quoted(write_value(document, schema, c))} {rules.mark(end)}" for c in written
            ]
            continue
        pattern = text_pattern(one)
        is_mixed = kind_of(document, schema) is Kind.MIXED
        found.append(_bare(rules, pattern, end, is_mixed, has_cdata))
    return found


def _bare(rules: Rules, pattern: str, end: str, is_mixed: bool, has_cdata: bool) -> str:
    if has_cdata:
        cdata = rules.text("cdata", pattern, "]]>" + end)
        return f'"<![CDATA[" {cdata}'
    if not is_mixed:
        return rules.text("text", pattern, end)
    return rules.text("text", pattern, end, _LIKE_JSON)


def _alternatives(document: Document, schema: Any, depth: int = 0) -> list[dict[str, Any]]:
    """The schemas, without alternatives of their own, that allow a text."""
    schema = document.resolved(schema)
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list) and depth < 8:
            beside = {name: value for name, value in schema.items() if name != key}
            each = [{**beside, **document.resolved(one)} for one in schema[key]]
            found = [x for one in each for x in _alternatives(document, one, depth + 1)]
            return found
    return [schema] if "string" in document.types_of(schema) else []


def _is_free(document: Document, schema: Any) -> bool:
    """Whether some text of the schema may be of any form."""
    plain = (
        choices_of(one) is None and text_pattern(one) == ".*"
        for one in _alternatives(document, schema)
    )
    return any(plain)
