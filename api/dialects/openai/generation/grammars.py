"""What a request says of its text's form, in any of the ways that clients know. Pure."""

from __future__ import annotations

import json
from typing import Any

from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.grammars import Grammar, GrammarKind

_FIELD = "response_format"


def to_grammar(
    *,
    response_format: dict[str, Any] | None = None,
    json_schema: dict[str, Any] | None = None,
    grammar: str | None = None,
    regex: str | None = None,
    choice: list[str] | None = None,
) -> Grammar | None:
    """The grammar asked for; ``InvalidRequestError`` for two, or for one that says nothing.

    ``json_schema`` is llama-server's, which has nothing around the schema.
    """
    found: list[Grammar] = []
    if (formatted := _of_format(response_format)) is not None:
        found.append(formatted)
    if json_schema is not None:
        found.append(_of_value(GrammarKind.JSON_SCHEMA, json_schema, "json_schema"))
    if grammar is not None:
        kind = GrammarKind.GBNF if "::=" in grammar else GrammarKind.LARK
        found.append(Grammar(kind, grammar, "grammar"))
    if choice is not None:
        found.append(_of_value(GrammarKind.CHOICE, choice, "choice"))
    if regex is not None:
        found.append(Grammar(GrammarKind.REGEX, regex, "regex"))
    if len(found) > 1:
        names = " and ".join(one.param for one in found)
        raise InvalidRequestError(f"only one of {names} may be given", found[1].param)
    return found[0] if found else None


def _of_format(given: dict[str, Any] | None) -> Grammar | None:
    kind = "text" if given is None else given.get("type")
    if given is None or kind == "text":
        return None
    if kind == "json_object" and given.get("schema") is None:
        return Grammar(GrammarKind.JSON_OBJECT)
    if kind not in ("json_object", "json_schema"):
        message = f"{_FIELD}.type: text, json_object or json_schema, not {str(kind)[:60]!r}"
        raise UnsupportedParameterError(message, _FIELD)
    # OpenAI puts the schema into an object with a name; llama-server's clients leave that out, and
    # say json_object, too.
    holder = given.get("json_schema")
    schema = holder.get("schema") if isinstance(holder, dict) else given.get("schema")
    if not isinstance(schema, dict):
        message = f"{_FIELD}.json_schema.schema: a JSON schema is needed"
        raise InvalidRequestError(message, f"{_FIELD}.json_schema.schema")
    return _of_value(GrammarKind.JSON_SCHEMA, schema, _FIELD)


def _of_value(kind: GrammarKind, value: Any, param: str) -> Grammar:
    try:
        return Grammar(kind, json.dumps(value, allow_nan=False), param)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{param}: no JSON: {error}", param) from None
