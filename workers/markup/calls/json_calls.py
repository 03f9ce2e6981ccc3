"""Calls that are JSON objects: ``{"name": …, "arguments": {…}}``, one, several or a list."""

from __future__ import annotations

import json
from dataclasses import dataclass

from workers.markup.calls.format import Tools
from workers.markup.calls.json_reading import read_json, read_text
from workers.markup.calls.rules import Rules, either, quoted
from workers.markup.calls.source import Ended, Source, Started, Steps, UnreadableError, Written

_NAMES = ("name", "tool_name", "function", "tool")
_ARGUMENTS = ("arguments", "parameters", "args")
_IDS = ("id", "tool_call_id", "call_id")


@dataclass(frozen=True, slots=True)
class JsonCalls:
    """Objects between ``start`` and ``end``.

    ``name_key``, ``arguments_key``: the keys of this format; the reader accepts all common keys.
    ``id_key``: key of a number as a string, before the name. ``is_list``: the objects are in a
    list. ``is_keyed``: the tool's name is the only key of an object. ``is_known``: only the
    request's tools are calls. ``needs_arguments``: an object without arguments is not a call.
    """

    name: str
    start: str
    end: str
    arguments_key: str = "arguments"
    name_key: str = "name"
    id_key: str = ""
    is_list: bool = False
    is_keyed: bool = False
    is_known: bool = False
    needs_arguments: bool = False

    def read(self, source: Source, tools: Tools, *, is_constrained: bool) -> Steps[None]:
        yield from source.skip_blanks()
        if (yield from source.take("[")):
            yield from self._read_list(source, tools)
        else:
            yield from self._read_sequence(source, tools)
        if self.end:
            yield from source.skip_blanks()
            yield from source.expect(self.end)

    def _read_list(self, source: Source, tools: Tools) -> Steps[None]:
        while True:
            yield from self._read_call(source, tools)
            yield from source.skip_blanks()
            if (yield from source.expect(",", "]")) == "]":
                return

    def _read_sequence(self, source: Source, tools: Tools) -> Steps[None]:
        while True:
            yield from self._read_call(source, tools)
            place = source.place
            yield from source.skip_blanks(also=";,")
            if not (yield from source.starts("{")):
                source.place = place
                return

    def _read_call(self, source: Source, tools: Tools) -> Steps[None]:
        yield from source.skip_blanks()
        yield from source.expect("{")
        call = _Call(tools if self.is_known else None, needs_arguments=self.needs_arguments)
        yield from self._read_keyed(source, call) if self.is_keyed else _members(source, call)
        yield from call.finish()

    def _read_keyed(self, source: Source, call: _Call) -> Steps[None]:
        call.name = yield from read_text(source)
        yield from _colon(source)
        yield from call.arguments(source)
        yield from source.skip_blanks()
        yield from source.expect("}")

    def section(self, rules: Rules) -> str:
        call = either([self._call(rules, index) for index in range(len(rules.tools))])
        if self.is_list:
            calls = f'_w "[" _w {call} (_w "," _w {call})* _w "]" _w'
        else:
            calls = f"_w {call} _w"
        return rules.add("section", f"{calls} {rules.mark(self.end)}".strip())

    def _call(self, rules: Rules, index: int) -> str:
        name = json.dumps(rules.tools[index]["name"], ensure_ascii=False)
        arguments = rules.arguments(index)
        if self.is_keyed:
            return rules.add("call", f'"{{" _w {quoted(name)} ":" _w {arguments} _w "}}"')
        id_part = rf'"\"{self.id_key}\":" _w /"[0-9]{{1,4}}",/ _w' if self.id_key else ""
        key = quoted(f'"{self.name_key}":')
        field = quoted(f'"{self.arguments_key}":')
        body = f'"{{" _w {id_part} {key} _w {quoted(name + ",")} _w {field} _w {arguments} _w "}}"'
        return rules.add("call", body)


class _Call:
    """One call; its members may come in any order."""

    def __init__(self, tools: Tools | None, *, needs_arguments: bool) -> None:
        self.name: str | None = None
        self.id: str | None = None
        self._tools = tools
        self._needs_arguments = needs_arguments
        self._held: str | None = None
        self._is_begun = False

    def arguments(self, source: Source) -> Steps[None]:
        """Read the arguments; if the name is known, they are yielded piece by piece."""
        yield from source.skip_blanks()
        one = yield from source.next()
        if one == "{" and self.name is not None:
            yield from self._begin()
            yield from read_json(source, is_streamed=True)
            return
        text = yield from read_json(source)
        if one == '"':  # some models write the object as a string
            text = json.loads(text)
        self._held = "{}" if text in ("null", "") else text
        if not isinstance(json.loads(self._held), dict):
            raise UnreadableError("the arguments are not an object")

    def finish(self) -> Steps[None]:
        if not self._is_begun:
            if self._held is None and self._needs_arguments:
                raise UnreadableError("the call has no arguments")
            yield from self._begin()
            yield Written(self._held or "{}")
        yield Ended()

    def _begin(self) -> Steps[None]:
        if not self.name or self._is_begun:
            raise UnreadableError("the call has no name, or has arguments twice")
        if self._tools is not None and not any(
            tool["function"]["name"] == self.name for tool in self._tools
        ):
            raise UnreadableError("no tool has this name")
        self._is_begun = True
        yield Started(self.name, self.id)


def _members(source: Source, call: _Call) -> Steps[None]:
    """Read the members of an object, after its opening brace, up to its end."""
    yield from source.skip_blanks()
    while not (yield from source.take("}")):
        key = yield from read_text(source)
        yield from _colon(source)
        yield from _member(source, call, key)
        yield from source.skip_blanks()
        if (yield from source.expect(",", "}")) == "}":
            return


def _member(source: Source, call: _Call, key: str) -> Steps[None]:
    yield from source.skip_blanks()
    one = yield from source.next()
    if key in _ARGUMENTS:
        yield from call.arguments(source)
    elif key in _NAMES and one == "{":
        source.place += 1
        yield from _members(source, call)
    elif key in _NAMES:
        call.name = yield from read_text(source)
    elif key in _IDS and one == '"':
        call.id = (yield from read_text(source)) or None
    else:
        yield from read_json(source)


def _colon(source: Source) -> Steps[None]:
    yield from source.skip_blanks()
    yield from source.expect(":")
