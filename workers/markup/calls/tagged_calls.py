"""Calls with a tag per argument, which contains a bare string or another value as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workers.markup.arguments.schema_types import Document
from workers.markup.arguments.values import Kind, dumps, kind_of, read_value
from workers.markup.calls.format import Tools, parameters_of
from workers.markup.calls.json_calls import JsonCalls
from workers.markup.calls.json_reading import read_json
from workers.markup.calls.rules import Rules, either
from workers.markup.calls.source import (
    CutError,
    Ended,
    Source,
    Started,
    Steps,
    UnreadableError,
    Written,
)
from workers.markup.calls.tagged_values import value_rule

_CDATA, _CDATA_END = "<![CDATA[", "]]>"


@dataclass(frozen=True, slots=True)
class TaggedCalls:
    """``call`` name ``name_end``, then per argument ``key`` key ``key_end`` value ``value_end``.

    The grammar uses these texts exactly; the reader ignores white space around them.
    ``json_key_end``: replaces ``key_end`` if the value is JSON. ``value_start``: a tag before the
    value. ``value_end``: ``{key}`` in it stands for the argument's key. ``has_cdata``: strings may
    be in CDATA sections. ``is_quoted``: names and keys are in quotes. ``is_section``: several calls
    are possible between ``start`` and ``end``.
    """

    name: str
    start: str
    end: str
    call: str
    name_end: str
    key: str
    key_end: str
    value_end: str
    call_end: str
    json_key_end: str = ""
    value_start: str = ""
    has_cdata: bool = False
    is_quoted: bool = False
    is_section: bool = False

    def read(self, source: Source, tools: Tools, *, is_constrained: bool) -> Steps[None]:
        yield from source.skip_blanks()
        if (yield from source.starts("{")):  # some models sometimes write JSON calls instead
            yield from JsonCalls(self.name, self.start, self.end).read(
                source, tools, is_constrained=False
            )
            return
        while True:
            yield from source.expect(self.call.strip())
            yield from self._read_call(source, tools, is_constrained)
            if not self.end:
                return
            yield from source.skip_blanks()
            if (yield from source.take(self.end)):
                return
            if not self.is_section:
                raise UnreadableError("the end marker of the call is missing")

    def _read_call(self, source: Source, tools: Tools, is_constrained: bool) -> Steps[None]:
        name = yield from self._read_name(source)
        if not name:
            raise UnreadableError("the call has no name")
        yield Started(name)
        yield Written("{")
        document = Document(parameters_of(tools, name))
        separator = ""
        while True:
            yield from source.skip_blanks()
            if self.call_end and (yield from source.take(self.call_end.strip())):
                break
            if not self.call_end and (yield from source.starts(self.end.strip())):
                break
            yield from source.expect(self.key.strip())
            key, value = yield from self._read_argument(source, document, is_constrained)
            yield Written(f"{separator}{dumps(key)}: {value}")
            separator = ", "
        yield Written("}")
        yield Ended()

    def _read_name(self, source: Source) -> Steps[str]:
        if stop := self.name_end.strip():
            return (yield from source.until(stop)).strip().strip("\"'")
        return (yield from source.until_any("<\n")).strip()

    def _read_argument(
        self, source: Source, document: Document, is_constrained: bool
    ) -> Steps[tuple[str, str]]:
        is_json: bool | None = None
        if self.json_key_end:
            key = yield from source.until('"')
            stop = _tag_end(self.key_end)
            is_json = f'"{(yield from source.until(stop))}{stop}' != self.key_end.strip()
        else:
            key = (yield from source.until(self.key_end.strip())).strip().strip("\"'")
        if self.value_start:
            yield from source.skip_blanks()
            yield from source.expect(self.value_start)
        schema = document.properties.get(key)
        value_end = self.value_end.replace("{key}", key)
        if is_json or (is_json is None and kind_of(document, schema) is Kind.JSON):
            value = yield from self._read_json(source, document, schema, value_end)
        elif is_json is False:
            value = dumps((yield from self._read_bare(source, value_end, is_constrained)))
        else:
            value = yield from self._read_text(source, document, schema, value_end, is_constrained)
        return key, value

    def _read_json(
        self, source: Source, document: Document, schema: Any, value_end: str
    ) -> Steps[str]:
        """A JSON value up to the end tag; other text there is converted by ``read_value``."""
        start = source.place
        try:
            value = yield from read_json(source)
            yield from source.skip_blanks()
            yield from source.expect(value_end.strip())
        except CutError:
            raise
        except UnreadableError:
            source.place = start
            text = yield from source.until(value_end.strip())
            return read_value(document, schema, text)
        return value

    def _read_text(
        self, source: Source, document: Document, schema: Any, value_end: str, is_constrained: bool
    ) -> Steps[str]:
        """A string, or an array or object if the schema allows that too."""
        kind = kind_of(document, schema)
        start = source.place
        yield from source.skip_blanks()
        is_nested = kind is Kind.MIXED and document.types_of(schema) & {"array", "object"}
        if is_nested and (yield from source.next()) in ("[", "{"):
            try:
                text = yield from read_json(source)
                yield from source.skip_blanks()
                yield from source.expect(value_end.strip())
            except CutError:
                raise
            except UnreadableError:
                pass
            else:
                return read_value(document, schema, text)
        source.place = start
        is_apart = self.has_cdata and (yield from source.starts(_CDATA))
        text = yield from self._read_bare(source, value_end, is_constrained)
        return dumps(text) if is_apart else read_value(document, schema, text)

    def _read_bare(self, source: Source, value_end: str, is_constrained: bool) -> Steps[str]:
        if self.has_cdata:
            yield from source.skip_blanks()
            if (yield from source.take(_CDATA)):
                text = yield from source.until(_CDATA_END)
                yield from source.skip_blanks()
                yield from source.expect(value_end.strip())
                return text
        lead = "\n" if self.key_end.endswith("\n") else ""
        if is_constrained:
            yield from source.take(lead)
            return (yield from source.until(value_end))
        text = yield from self._until_end(source, value_end.strip())
        text = text.removeprefix("\n").removesuffix("\n") if lead else text
        return text.strip() if self.has_cdata else text

    def _until_end(self, source: Source, end: str) -> Steps[str]:
        """The text up to the first ``end`` after which the call can continue or end."""
        follows = [mark.strip() for mark in (self.key, self.call_end or self.end) if mark]
        start = source.place
        while True:
            yield from source.until(end)
            text, place = source.text[start : source.place - len(end)], source.place
            yield from source.skip_blanks()
            for mark in follows:
                if (yield from source.starts(mark)):
                    source.place = place
                    return text
            if not (yield from source.has()):
                raise UnreadableError("the text ends inside a call")
            source.place = place

    def section(self, rules: Rules) -> str:
        calls = [self._call_rule(rules, index) for index in range(len(rules.tools))]
        repeat = f"({either(calls)} _w)+" if self.is_section else f"{either(calls)}"
        gap = "_w" if self.end and not self.is_section else ""
        parts = ["_w" if self.call else "", repeat, gap, rules.mark(self.end)]
        return rules.add("section", " ".join(part for part in parts if part))

    def _call_rule(self, rules: Rules, index: int) -> str:
        document = Document(rules.parameters(index))
        name = self._quoted(rules.tools[index]["name"])
        gap = "" if self.value_end.endswith("\n") else "_w"
        parts = [rules.mark(f"{self.call}{name}{self.name_end}"), gap]
        for key, schema in document.properties.items():
            rule = self._argument_rule(rules, document, key, schema)
            parts += [f"({rule} {gap})" + ("" if key in document.required else "?")]
        parts.append(rules.mark(self.call_end))
        return rules.add("call", " ".join(part for part in parts if part))

    def _argument_rule(self, rules: Rules, document: Document, key: str, schema: Any) -> str:
        value_end = self.value_end.replace("{key}", key)
        start = f" _w {rules.mark(self.value_start)}" if self.value_start else ""
        begin = self.key + self._quoted(key)
        heads = {
            False: rules.mark(begin + self.key_end) + start,
            True: rules.mark(begin + (self.json_key_end or self.key_end)) + start,
        }
        ways = value_rule(
            rules,
            document,
            schema,
            value_end,
            is_type_marked=bool(self.json_key_end),
            has_cdata=self.has_cdata,
        )
        return rules.add("value", " | ".join(f"{heads[is_json]} {way}" for is_json, way in ways))

    def _quoted(self, name: str) -> str:
        return f'"{name}"' if self.is_quoted else name


def _tag_end(key_end: str) -> str:
    """The end of the tag that contains the key: everything after the last quote."""
    return key_end.strip().rpartition('"')[2]
