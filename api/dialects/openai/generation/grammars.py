"""What a request says of its text's form, in any of the ways that clients know. Pure."""

from __future__ import annotations

import json
from typing import Any

from api.dialects.openai.generation.schema import GenerationBody
from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.grammars import Grammar, GrammarKind

_FIELD = "response_format"


def to_grammar(body: GenerationBody) -> Grammar | None:
    """The grammar asked for; ``InvalidRequestError`` for two, or for one that says nothing."""
    ways = (_of_format(body), _of_schema(body), _of_text(body), _of_choice(body))
    found = [one for one in ways if one]
    if body.regex is not None:
        found.append(Grammar(GrammarKind.REGEX, body.regex, "regex"))
    if len(found) > 1:
        names = " and ".join(grammar.param for grammar in found)
        raise InvalidRequestError(f"only one of {names} may be given", found[1].param)
    if found and body.ignore_eos:
        message = "ignore_eos: a text with a grammar ends where the grammar does"
        raise UnsupportedParameterError(message, "ignore_eos")
    return found[0] if found else None


def _of_format(body: GenerationBody) -> Grammar | None:
    given = body.response_format
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
    return Grammar(GrammarKind.JSON_SCHEMA, _to_json(schema))


def _of_schema(body: GenerationBody) -> Grammar | None:
    """llama-server's field, which has nothing around the schema."""
    if body.json_schema is None:
        return None
    return Grammar(GrammarKind.JSON_SCHEMA, _to_json(body.json_schema), "json_schema")


def _of_text(body: GenerationBody) -> Grammar | None:
    if body.grammar is None:
        return None
    kind = GrammarKind.GBNF if "::=" in body.grammar else GrammarKind.LARK
    return Grammar(kind, body.grammar, "grammar")


def _of_choice(body: GenerationBody) -> Grammar | None:
    if body.choice is None:
        return None
    return Grammar(GrammarKind.CHOICE, _to_json(body.choice), "choice")


def _to_json(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"no JSON: {error}", _FIELD) from None
