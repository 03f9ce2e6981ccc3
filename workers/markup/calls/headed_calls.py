"""Calls that consist of a name and then the arguments as a JSON object, between markers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from workers.markup.calls.format import Tools
from workers.markup.calls.json_reading import read_json
from workers.markup.calls.rules import Rules, either
from workers.markup.calls.source import Ended, Source, Started, Steps, UnreadableError

_NUMBERED = re.compile(r"(?:functions\.)?(.+):[0-9]+")


@dataclass(frozen=True, slots=True)
class HeadedCalls:
    """``begin`` name ``middle`` arguments ``close``, once or more between ``start`` and ``end``.

    The grammar uses the first of ``middles``, the reader accepts all of them. ``is_loose``: the
    reader accepts any text between name and arguments. ``id_before``: an id comes first, followed
    by this text. ``id_mark``: an id follows the name and this text. ``is_numbered``: the name is
    ``functions.NAME:N``, which is also the id. ``is_section``: several calls are possible.
    """

    name: str
    start: str
    end: str
    middles: tuple[str, ...]
    begin: str = ""
    close: str = ""
    id_before: str = ""
    id_mark: str = ""
    is_numbered: bool = False
    is_loose: bool = False
    is_section: bool = False

    def read(self, source: Source, tools: Tools, *, is_constrained: bool) -> Steps[None]:
        yield from source.skip_blanks()
        while True:
            yield from source.expect(self.begin)
            yield from self._read_call(source)
            if not self.is_section:
                return
            yield from source.skip_blanks()
            if self.end and (yield from source.take(self.end)):
                return
            if not (yield from source.starts(self.begin)):
                if self.end:
                    raise UnreadableError("the end marker of the calls is missing")
                return

    def _read_call(self, source: Source) -> Steps[None]:
        own_id: str | None = None
        if self.id_before:
            own_id = (yield from source.until(self.id_before)).strip() or None
        name, middle = yield from self._read_name(source)
        if self.id_mark and middle == self.id_mark:
            own_id = (yield from source.until(self.middles[0])).strip() or None
        if self.is_numbered and (found := _NUMBERED.fullmatch(name)):
            own_id, name = name, found[1]
        if not name:
            raise UnreadableError("the call has no name")
        yield from source.skip_blanks()
        yield Started(name, own_id)
        if not (yield from source.starts("{")):
            raise UnreadableError("the arguments are not an object")
        yield from read_json(source, is_streamed=True)
        yield Ended()
        close = self.close or ("" if self.is_section else self.end)
        if close:
            yield from source.skip_blanks()
            yield from source.expect(close, close.strip())

    def _read_name(self, source: Source) -> Steps[tuple[str, str]]:
        """The name, and the text that ended it."""
        marks = [*self.middles, *([self.id_mark] if self.id_mark else [])]
        start = source.place
        while True:
            found = [(source.text.find(mark, start), mark) for mark in marks]
            places = [one for one in found if one[0] >= 0]
            brace = source.text.find("{", start)
            if brace >= 0 and not any(place < brace for place, _ in places):
                return self._loose_name(source, start, brace), self.middles[0]
            if places and not self._may_come_earlier(source.text, start, min(places)[0], marks):
                place, mark = min(places, key=lambda one: (one[0], -len(one[1])))
                source.place = place + len(mark)
                return source.text[start:place].strip(), mark
            yield from source.more()

    def _may_come_earlier(self, text: str, start: int, place: int, marks: list[str]) -> bool:
        """Whether the text so far may be the beginning of a longer mark at ``place``."""
        rest = text[place:]
        return any(len(mark) > len(rest) and mark.startswith(rest) for mark in marks)

    def _loose_name(self, source: Source, start: int, brace: int) -> str:
        if not self.is_loose:
            raise UnreadableError("the markers of the call are missing")
        source.place = brace
        head = re.match(r"\s*([\w.-]*)", source.text[start:brace])
        return head[1] if head else ""

    def section(self, rules: Rules) -> str:
        calls = [self._call(rules, index) for index in range(len(rules.tools))]
        call = either(calls)
        if not self.is_section:
            return rules.add("section", f"{call} {rules.mark(self.end)}".strip())
        return rules.add("section", f"_w ({call} _w)+ {rules.mark(self.end)}".strip())

    def _call(self, rules: Rules, index: int) -> str:
        name = rules.tools[index]["name"]
        head = f"functions.{name}:" if self.is_numbered else name
        number = "/[0-9]{1,3}/" if self.is_numbered else ""
        parts = [rules.mark(self.begin)]
        if self.id_before:
            parts += ["/[a-z0-9]{1,12}/", rules.mark(self.id_before)]
        parts += [rules.mark(head), number]
        if self.id_mark:
            parts += [rules.mark(self.id_mark), "/[a-zA-Z0-9]{9}/"]
        parts += [rules.mark(self.middles[0]), rules.arguments(index), rules.mark(self.close)]
        return rules.add("call", " ".join(part for part in parts if part))
