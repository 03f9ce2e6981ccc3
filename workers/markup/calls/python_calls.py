"""Calls in Python's syntax: ``[name(key="value", other=[1, true])]``."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from workers.markup.arguments.schema_types import Document, choices_of, with_document
from workers.markup.arguments.values import dumps, is_json
from workers.markup.calls.format import Tools
from workers.markup.calls.rules import Rules, either, in_order, quoted
from workers.markup.calls.source import Ended, Source, Started, Steps, UnreadableError, Written

_CLOSING = {"[": "]", "{": "}", "(": ")"}
_JSON_NAMES = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True)
class PythonCalls:
    """A list of calls between ``start`` and ``end``."""

    name: str
    start: str
    end: str

    def read(self, source: Source, tools: Tools, *, is_constrained: bool) -> Steps[None]:
        yield from source.skip_blanks()
        yield from source.expect("[")
        while True:
            yield from self._read_call(source)
            yield from source.skip_blanks()
            if (yield from source.expect(",", "]")) == "]":
                break
        if self.end:
            yield from source.skip_blanks()
            yield from source.expect(self.end)

    def _read_call(self, source: Source) -> Steps[None]:
        name = (yield from source.until("(")).strip()
        if not name or any(one in name for one in "\"'[]{},="):
            raise UnreadableError("the call has no name")
        yield Started(name)
        yield Written("{")
        separator = ""
        yield from source.skip_blanks()
        while not (yield from source.take(")")):
            key = (yield from source.until("=")).strip()
            value = decoded((yield from _value(source)))
            yield Written(f"{separator}{dumps(key)}: {value}")
            separator = ", "
            if (yield from source.expect(",", ")")) == ")":
                break
            yield from source.skip_blanks()
        yield Written("}")
        yield Ended()

    def section(self, rules: Rules) -> str:
        call = either([self._call(rules, index) for index in range(len(rules.tools))])
        body = f'"[" {call} (", " {call})* "]" {rules.mark(self.end)}'
        return rules.add("section", body)

    def _call(self, rules: Rules, index: int) -> str:
        document = Document(rules.parameters(index))
        names = [
            (key, rules.add("value", f"{quoted(key + '=')} {_json(rules, document, schema)}"))
            for key, schema in document.properties.items()
        ]
        arguments = in_order(rules, [(rule, key in document.required) for key, rule in names], ", ")
        return rules.add("call", f'{quoted(rules.tools[index]["name"] + "(")} {arguments} ")"')


def _json(rules: Rules, document: Document, schema: Any) -> str:
    found = document.resolved(schema)
    if choices := choices_of(found):
        return either([quoted(dumps(one)) for one in choices])
    return rules.json("json", with_document(document, found))


def decoded(text: str) -> str:
    """The JSON text of a value that is written as JSON or as a Python literal."""
    text = text.strip()
    if is_json(text):
        return text
    try:
        tree = _JsonNames().visit(ast.parse(text, mode="eval"))
        return dumps(ast.literal_eval(tree))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise UnreadableError(f"not a value: {error}") from error


class _JsonNames(ast.NodeTransformer):
    """Replaces ``true``, ``false`` and ``null`` in Python literals."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in _JSON_NAMES:
            return node
        return ast.copy_location(ast.Constant(_JSON_NAMES[node.id]), node)


def _value(source: Source) -> Steps[str]:
    """The text of a value, up to the comma or bracket that ends it."""
    start = source.place
    closing: list[str] = []
    quote = ""
    while True:
        if not (yield from source.has()):
            yield from source.more()
        one = source.text[source.place]
        if quote:
            if one == "\\":
                yield from source.has(2)
                source.place += 1
            elif one == quote:
                quote = ""
        elif not closing and one in ",)":
            return source.text[start : source.place]
        elif one in "\"'":
            quote = one
        elif one in _CLOSING:
            closing.append(_CLOSING[one])
        elif one in ")]}" and (not closing or closing.pop() != one):
            raise UnreadableError("the brackets do not match")
        source.place += 1
