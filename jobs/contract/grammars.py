"""Constraints on generated text."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class GrammarKind(StrEnum):
    """The language in which a grammar is written."""

    JSON_OBJECT = "json_object"  # any JSON object; the text is empty
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    LARK = "lark"
    GBNF = "gbnf"
    CHOICE = "choice"  # a JSON list of texts


class Grammar(msgspec.Struct, frozen=True, omit_defaults=True):
    """A constraint on a generation. ``param`` is the request field that set it."""

    kind: GrammarKind
    text: str = ""
    param: str = "response_format"
