"""Gemma's calls: ``call:name{key:value}``, with bare keys, and strings between special marks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from workers.markup.arguments.schema_types import Document, choices_of
from workers.markup.arguments.text_patterns import text_pattern
from workers.markup.arguments.values import dumps
from workers.markup.calls.format import Tools
from workers.markup.calls.json_reading import read_json
from workers.markup.calls.rules import Rules, either, in_order
from workers.markup.calls.source import Ended, Source, Started, Steps, UnreadableError, Written

_MAX_DEPTH = 5
_SCALAR = re.compile(r"-?[0-9][0-9.eE+\-]*|true|false|null")


@dataclass(frozen=True, slots=True)
class GemmaCalls:
    """Calls between ``start`` and ``end``; ``mark`` is before and after each string."""

    name: str
    start: str
    end: str
    mark: str

    def read(self, source: Source, tools: Tools, *, is_constrained: bool) -> Steps[None]:
        yield from source.skip_blanks()
        while True:
            yield from source.expect("call:")
            name = (yield from source.until("{")).strip()
            if not name:
                raise UnreadableError("the call has no name")
            yield Started(name)
            yield Written("{")
            yield from self._members(source, is_streamed=True)
            yield Written("}")
            yield Ended()
            yield from source.skip_blanks(also=",")
            if (yield from source.take(self.end)):
                return

    def _members(self, source: Source, *, is_streamed: bool = False) -> Steps[str]:
        """The members of an object, after its brace; ``is_streamed``: yield each when complete."""
        found: list[str] = []
        yield from source.skip_blanks()
        while not (yield from source.take("}")):
            key = yield from self._key(source)
            member = f"{', ' if found else ''}{dumps(key)}: {(yield from self._value(source))}"
            found.append(member)
            if is_streamed:
                yield Written(member)
            yield from source.skip_blanks()
            if (yield from source.expect(",", "}")) == "}":
                break
            yield from source.skip_blanks()
        return "".join(found)

    def _key(self, source: Source) -> Steps[str]:
        yield from source.skip_blanks()
        if (yield from source.take(self.mark)):
            key = yield from source.until(self.mark)
            yield from source.skip_blanks()
            yield from source.expect(":")
            return key
        return (yield from source.until(":")).strip()

    def _value(self, source: Source) -> Steps[str]:
        yield from source.skip_blanks()
        if (yield from source.take(self.mark)):
            return dumps((yield from source.until(self.mark)))
        if (yield from source.take("{")):
            return f"{{{(yield from self._members(source))}}}"
        if (yield from source.take("[")):
            return (yield from self._items(source))
        if (yield from source.next()) == '"':
            return (yield from read_json(source))
        text = (yield from source.until_any(",}]")).strip()
        return text if _SCALAR.fullmatch(text) else dumps(text)

    def _items(self, source: Source) -> Steps[str]:
        found: list[str] = []
        yield from source.skip_blanks()
        while not (yield from source.take("]")):
            found.append((yield from self._value(source)))
            yield from source.skip_blanks()
            if (yield from source.expect(",", "]")) == "]":
                break
        return f"[{', '.join(found)}]"

    def section(self, rules: Rules) -> str:
        call = either([self._call(rules, index) for index in range(len(rules.tools))])
        return rules.add("section", f"{call} {rules.mark(self.end)}")

    def _call(self, rules: Rules, index: int) -> str:
        document = Document(rules.parameters(index))
        body = _Writer(rules, document, self.mark).members(document.root, 0)
        return rules.add("call", f"{rules.mark('call:' + rules.tools[index]['name'])} {body}")


class _Writer:
    """Writes grammar rules for values of a schema."""

    def __init__(self, rules: Rules, document: Document, mark: str) -> None:
        self._rules = rules
        self._document = document
        self._mark = mark
        self._any: dict[int, str] = {}

    def members(self, schema: Any, depth: int) -> str:
        schema = self._document.resolved(schema)
        properties = schema.get("properties")
        if not isinstance(properties, dict):
            return self._rules.add("object", '"{" "}"')
        required = schema.get("required") or []
        members = [
            (self._rules.add("member", f"{self._rules.mark(key + ':')} {self.value(one, depth)}"),
             key in required)
            for key, one in properties.items()
        ]  # fmt: skip
        return self._rules.add("object", f'"{{" {in_order(self._rules, members, ",")} "}}"')

    def value(self, schema: Any, depth: int = 0) -> str:
        schema = self._document.resolved(schema)
        if (choices := choices_of(schema)) is not None:
            return self._rules.add("choice", " | ".join(map(self._constant, choices)))
        for key in ("anyOf", "oneOf"):
            if isinstance(schema.get(key), list) and schema[key]:
                beside = {name: value for name, value in schema.items() if name != key}
                each = [{**beside, **self._document.resolved(one)} for one in schema[key]]
                return self._rules.add("any", " | ".join(self.value(x, depth) for x in each))
        types = self._document.types_of(schema)
        types -= {"integer"} if "number" in types else set()
        ways = (self._typed(schema, one, depth) for one in sorted(types) or ["string"])
        return self._rules.add("value", " | ".join(ways))

    def _typed(self, schema: dict[str, Any], name: str, depth: int) -> str:
        if name == "string":
            text = self._rules.text("text", f"/(?s:{text_pattern(schema)})/", self._mark)
            return f"{self._rules.mark(self._mark)} {text}"
        if name == "object":
            return self.members(schema, depth + 1) if depth < _MAX_DEPTH else '"{}"'
        if name == "array":
            return self._list(schema, depth + 1) if depth < _MAX_DEPTH else '"[]"'
        bounds = {key: value for key, value in schema.items() if key not in ("type", "$ref")}
        return self._rules.json("json", {**bounds, "type": name})

    def _list(self, schema: dict[str, Any], depth: int) -> str:
        item = self.value(schema.get("items"), depth)
        least = schema.get("minItems") or 0
        most = schema.get("maxItems")
        inner = ""
        if most is None or most > 1:
            inner = f'{item} ("," {item}){{{max(least - 1, 0)},{"" if most is None else most - 1}}}'
        elif most == 1:
            inner = item
        return self._rules.add("list", f'"[" {inner if least else f"({inner})?"} "]"')

    def _constant(self, value: Any) -> str:
        return " ".join(self._pieces(value))

    def _pieces(self, value: Any) -> list[str]:
        if isinstance(value, str):
            return [self._rules.mark(self._mark + value + self._mark)]
        if isinstance(value, list):
            inner = [
                p for n, one in enumerate(value) for p in (['","'] if n else []) + self._pieces(one)
            ]
            return ['"["', *inner, '"]"']
        if isinstance(value, dict):
            inner = [
                p
                for n, (key, one) in enumerate(value.items())
                for p in (['","'] if n else []) + [self._rules.mark(f"{key}:"), *self._pieces(one)]
            ]
            return ['"{"', *inner, '"}"']
        return [self._rules.mark(dumps(value))]
