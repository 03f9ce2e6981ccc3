"""What a request says of its text's form, in any of the ways that clients know. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.grammars import Grammar, GrammarKind

_FORMAT = "response_format"
_MAX_CHOICES = 1000
_STRUCTURED = "structured_outputs"
# How vLLM's grammars write their JSON, and what it does without a backend that can.
_WITHOUT_EFFECT = frozenset(
    {"disable_fallback", "disable_any_whitespace", "disable_additional_properties"}
)


def to_grammar(**given: Any) -> Grammar | None:
    """The grammar asked for, under any of the names of ``_READERS``.

    ``InvalidRequestError`` for two that differ, or for one that says nothing.
    """
    asked = [name for name in _READERS if given.get(name) is not None]
    read = (_READERS[name](given[name], name) for name in asked)
    found = [grammar for grammar in read if grammar is not None]
    for other in found[1:]:
        if (other.kind, other.text) != (found[0].kind, found[0].text):
            message = f"only one of {found[0].param} and {other.param} may be given"
            raise InvalidRequestError(message, other.param)
    return found[0] if found else None


def _of_format(given: dict[str, Any], param: str) -> Grammar | None:
    kind = given.get("type")
    if kind == "text":
        return None
    if kind == "json_object" and given.get("schema") is None:
        return Grammar(GrammarKind.JSON_OBJECT)
    if kind not in ("json_object", "json_schema"):
        message = f"{param}.type: text, json_object or json_schema, not {str(kind)[:60]!r}"
        raise UnsupportedParameterError(message, param)
    # OpenAI puts the schema into an object with a name; llama-server's clients leave that out, and
    # say json_object, too.
    holder = given.get("json_schema")
    schema = holder.get("schema") if isinstance(holder, dict) else given.get("schema")
    if not isinstance(schema, dict):
        message = f"{param}.json_schema.schema: a JSON schema is needed"
        raise InvalidRequestError(message, f"{param}.json_schema.schema")
    return _of_schema(schema, param)


def _of_ollama(given: dict[str, Any] | str, param: str) -> Grammar | None:
    """ollama's ``format``: the word json, or a schema."""
    if given == "json":
        return Grammar(GrammarKind.JSON_OBJECT, "", param)
    return _of_schema(given, param)


def _of_schema(given: Any, param: str) -> Grammar | None:
    """A schema, which may be written as a text; an empty text says nothing."""
    if isinstance(given, str):
        if not given.strip():
            return None
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            raise InvalidRequestError(f"{param}: no JSON schema", param) from None
    if not isinstance(given, dict):
        raise InvalidRequestError(f"{param}: a JSON schema is an object", param)
    return _of_value(GrammarKind.JSON_SCHEMA, given, param)


def _of_text(given: Any, param: str) -> Grammar | None:
    kind = GrammarKind.GBNF if "::=" in _checked_text(given, param) else GrammarKind.LARK
    return Grammar(kind, given, param) if given else None


def _of_regex(given: Any, param: str) -> Grammar | None:
    return Grammar(GrammarKind.REGEX, given, param) if _checked_text(given, param) else None


def _of_choice(given: Any, param: str) -> Grammar | None:
    is_list = isinstance(given, list) and 1 <= len(given) <= _MAX_CHOICES
    if not is_list or not all(isinstance(text, str) for text in given):
        message = f"{param}: a list of 1 to {_MAX_CHOICES} texts"
        raise InvalidRequestError(message, param)
    return _of_value(GrammarKind.CHOICE, given, param)


def _of_flag(given: Any, param: str) -> Grammar | None:
    if not isinstance(given, bool):
        raise InvalidRequestError(f"{param}: true or false", param)
    return Grammar(GrammarKind.JSON_OBJECT, "", param) if given else None


def _of_structured(given: dict[str, Any], param: str) -> Grammar | None:
    """vLLM's object, with one of several forms in it."""
    asked = {
        name: value
        for name, value in given.items()
        if value is not None and name not in _WITHOUT_EFFECT
    }
    for name in asked.keys() - _STRUCTURED_FORMS.keys():
        place = f"{param}.{name[:40]}"
        raise UnsupportedParameterError(f"{place}: there is no such form here", place)
    found = [_STRUCTURED_FORMS[name](value, f"{param}.{name}") for name, value in asked.items()]
    forms = [grammar for grammar in found if grammar is not None]
    if len(forms) != 1:
        raise InvalidRequestError(f"{param}: exactly one form is needed", param)
    return forms[0]


def _checked_text(given: Any, param: str) -> str:
    if not isinstance(given, str):
        raise InvalidRequestError(f"{param}: a text", param)
    return given


def _of_value(kind: GrammarKind, value: Any, param: str) -> Grammar:
    try:
        return Grammar(kind, json.dumps(value, allow_nan=False), param)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{param}: no JSON: {error}", param) from None


_Reader = Callable[[Any, str], Grammar | None]
_STRUCTURED_FORMS: dict[str, _Reader] = {
    "json": _of_schema,
    "regex": _of_regex,
    "choice": _of_choice,
    "grammar": _of_text,
    "json_object": _of_flag,
}
_READERS: dict[str, _Reader] = {
    _FORMAT: _of_format,
    "format": _of_ollama,
    "json_schema": _of_schema,
    "guided_json": _of_schema,
    "grammar": _of_text,
    "guided_grammar": _of_text,
    "choice": _of_choice,
    "guided_choice": _of_choice,
    "regex": _of_regex,
    "guided_regex": _of_regex,
    _STRUCTURED: _of_structured,
}
