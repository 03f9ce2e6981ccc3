"""Reads JSON values from a text that arrives in pieces."""

from __future__ import annotations

import json
import re
from enum import Enum, auto

from workers.markup.calls.source import BLANKS, CutError, Source, Steps, UnreadableError, Written

_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_SCALAR = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false|null")
_SCALAR_CHARACTERS = re.compile(r"[-+.0-9A-Za-z]*")
_CLOSING = {"{": "}", "[": "]"}
_HEX = frozenset("0123456789abcdefABCDEF")


class _State(Enum):
    VALUE = auto()
    VALUE_OR_END = auto()
    KEY = auto()
    KEY_OR_END = auto()
    COLON = auto()
    AFTER = auto()
    STRING = auto()
    ESCAPE = auto()
    HEX = auto()
    SCALAR = auto()


class JsonScanner:
    """Finds the end of one JSON value; raises ``UnreadableError`` for invalid JSON."""

    def __init__(self) -> None:
        self.is_done = False
        self._state = _State.VALUE
        self._open: list[str] = []  # closing brackets of the open objects and lists
        self._is_key = False
        self._num_hex = 0
        self._scalar = ""

    def take(self, text: str, place: int) -> int:
        """Read from ``place`` on; returns the end of the value or of the text."""
        while place < len(text) and not self.is_done:
            place = self._step(text, place)
        return place

    def finish(self) -> None:
        """At the end of the text, where a number may end; raises ``CutError`` for other values."""
        if self._state is _State.SCALAR and not self._open and _SCALAR.fullmatch(self._scalar):
            self._end_scalar()
        if not self.is_done:
            raise CutError("the text ends inside a JSON value")

    def _step(self, text: str, place: int) -> int:
        state = self._state
        if state is _State.STRING:
            return self._string(text, place)
        if state is _State.SCALAR:
            found = _SCALAR_CHARACTERS.match(text, place)
            assert found is not None
            self._scalar += found[0]
            if found.end() < len(text):
                self._end_scalar()
            return found.end()
        if state in (_State.ESCAPE, _State.HEX):
            self._escape(text[place])
        elif text[place] not in BLANKS:
            self._structure(text[place])
        return place + 1

    def _string(self, text: str, place: int) -> int:
        found = _PLAIN.match(text, place)
        assert found is not None
        place = found.end()
        if place == len(text):
            return place
        if text[place] == '"':
            self._end_string()
        elif text[place] == "\\":
            self._state = _State.ESCAPE
        else:
            raise UnreadableError("a JSON string contains a control character")
        return place + 1

    def _escape(self, one: str) -> None:
        if self._state is _State.ESCAPE:
            if one not in '"\\/bfnrtu':
                raise UnreadableError("a JSON string contains an unknown escape")
            self._state = _State.HEX if one == "u" else _State.STRING
            self._num_hex = 0
            return
        if one not in _HEX:
            raise UnreadableError("a JSON string contains an unknown escape")
        self._num_hex += 1
        if self._num_hex == 4:
            self._state = _State.STRING

    def _end_string(self) -> None:
        if self._is_key:
            self._is_key, self._state = False, _State.COLON
        else:
            self._end_value()

    def _end_scalar(self) -> None:
        if not _SCALAR.fullmatch(self._scalar):
            raise UnreadableError("not a JSON value")
        self._scalar = ""
        self._end_value()

    def _end_value(self) -> None:
        self._state = _State.AFTER
        self.is_done = not self._open

    def _structure(self, one: str) -> None:
        state = self._state
        if state in (_State.VALUE, _State.VALUE_OR_END) and one != "]":
            self._begin_value(one)
        elif state in (_State.KEY, _State.KEY_OR_END) and one == '"':
            self._is_key, self._state = True, _State.STRING
        elif state is _State.COLON and one == ":":
            self._state = _State.VALUE
        elif state is _State.AFTER and one == ",":
            self._state = _State.KEY if self._open[-1] == "}" else _State.VALUE
        elif self._may_close and self._open[-1] == one:
            self._open.pop()
            self._end_value()
        else:
            raise UnreadableError(f"unexpected {one!r} in JSON")

    @property
    def _may_close(self) -> bool:
        states = (_State.AFTER, _State.KEY_OR_END, _State.VALUE_OR_END)
        return self._state in states and bool(self._open)

    def _begin_value(self, one: str) -> None:
        if one in _CLOSING:
            self._open.append(_CLOSING[one])
            self._state = _State.KEY_OR_END if one == "{" else _State.VALUE_OR_END
        elif one == '"':
            self._state = _State.STRING
        elif _SCALAR_CHARACTERS.fullmatch(one):
            self._scalar, self._state = one, _State.SCALAR
        else:
            raise UnreadableError(f"unexpected {one!r} in JSON")


def read_json(source: Source, *, is_streamed: bool = False) -> Steps[str]:
    """Read the next JSON value, return its text; ``is_streamed``: also yield it as it arrives."""
    yield from source.skip_blanks()
    scanner = JsonScanner()
    start = source.place
    while True:
        end = scanner.take(source.text, source.place)
        piece, source.place = source.text[source.place : end], end
        if is_streamed and piece:
            yield Written(piece)
        if scanner.is_done:
            return source.text[start:end]
        if source.is_over:
            scanner.finish()
        else:
            yield None


def read_text(source: Source) -> Steps[str]:
    """Read the next JSON string and return it decoded."""
    yield from source.skip_blanks()
    if not (yield from source.starts('"')):
        raise UnreadableError("a JSON string is missing")
    value = json.loads((yield from read_json(source)))
    assert isinstance(value, str)
    return value
