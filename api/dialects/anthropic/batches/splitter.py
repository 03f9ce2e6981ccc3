"""Splits the body of a new batch into its requests, without holding the whole. Pure."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

from jobs.contract.errors import InvalidRequestError

FIELD = "requests"
_SPACE = re.compile(r"[ \t\n\r]*")
_UNTIL_DELIMITER = re.compile(r"[^,}\] \t\n\r]*")
_MAX_OTHER_CHARS = 64 * 1024


class _More:
    """The rest of what was begun has not arrived."""


_MORE: Final = _More()
_Step: TypeAlias = Callable[[], "str | _More | None"]


class RequestSplitter:
    """Yields the text of each element of ``requests`` as it is complete.

    Only the outer object is checked here, and that elements are objects; their text has no line
    breaks. Raises ``InvalidRequestError``.
    """

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars
        self._bytes = codecs.getincrementaldecoder("utf-8")()
        self._json = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._key = ""
        self._num_found = 0
        self._has_field = False
        self._is_last_piece = False
        self._problem = ""
        self._step: _Step = self._begin

    def feed(self, piece: bytes) -> Iterator[str]:
        """The elements that the piece completes."""
        try:
            added = self._bytes.decode(piece, final=self._is_last_piece)
        except UnicodeDecodeError:
            raise InvalidRequestError("the body is not valid UTF-8") from None
        self._text = self._text[self._at :] + added
        self._at = 0
        while not isinstance(found := self._step(), _More):
            if found is not None:
                yield found

    def close(self) -> None:
        """The body is over. Raises ``InvalidRequestError`` when its object is not."""
        self._is_last_piece = True
        for _ in self.feed(b""):
            pass  # an element ends with a brace, so that none is left
        if self._step != self._end:
            reason = self._problem or "it ends too early"
            raise InvalidRequestError(f"the body is not valid JSON{self._place()}: {reason}")
        if not self._has_field:
            raise InvalidRequestError(f"{FIELD}: Field required", FIELD)

    def _begin(self) -> _More | None:
        return self._takes({"{": self._first_key})

    def _first_key(self) -> _More | None:
        return self._takes({"}": self._end, '"': self._read_key}, is_kept='"')

    def _next_key(self) -> _More | None:
        return self._takes({'"': self._read_key}, is_kept='"')

    def _read_key(self) -> _More | None:
        found = self._value(_MAX_OTHER_CHARS)
        if isinstance(found, _More):
            return _MORE
        self._key = found[0]
        self._step = self._colon
        return None

    def _colon(self) -> _More | None:
        return self._takes({":": self._open if self._key == FIELD else self._other})

    def _other(self) -> _More | None:
        if isinstance(self._peek(), _More) or isinstance(self._value(_MAX_OTHER_CHARS), _More):
            return _MORE
        self._step = self._after
        return None

    def _open(self) -> _More | None:
        if self._has_field:
            raise InvalidRequestError(f"{FIELD}: is given twice", FIELD)
        if self._peek() not in ("[", _MORE):
            raise InvalidRequestError(f"{FIELD}: must be a list", FIELD)
        return self._takes({"[": self._first_element})

    def _first_element(self) -> _More | None:
        self._has_field = True
        return self._takes({"]": self._after, "{": self._element}, is_kept="{")

    def _next_element(self) -> _More | None:
        return self._takes({"{": self._element}, is_kept="{")

    def _element(self) -> str | _More:
        found = self._value(self._max_chars)
        if isinstance(found, _More):
            return _MORE
        self._num_found += 1
        self._step = self._separator
        return found[1].replace("\n", " ").replace("\r", " ")

    def _separator(self) -> _More | None:
        return self._takes({",": self._next_element, "]": self._after})

    def _after(self) -> _More | None:
        return self._takes({",": self._next_key, "}": self._end})

    def _end(self) -> _More | None:
        if not isinstance(self._peek(), _More):
            raise InvalidRequestError("the body goes on after its JSON object")
        return _MORE

    def _peek(self) -> str | _More:
        """The next character that is no space."""
        found = _SPACE.match(self._text, self._at)
        assert found is not None
        self._at = found.end()
        return self._text[self._at] if self._at < len(self._text) else _MORE

    def _takes(self, steps: dict[str, _Step], is_kept: str = "") -> _More | None:
        """Go on by the next character; it is taken, unless it begins a value."""
        char = self._peek()
        if isinstance(char, _More):
            return _MORE
        if char not in steps:
            expected = " or ".join(steps)
            raise InvalidRequestError(
                f"the body is not valid JSON{self._place()}: {char!r} in the place of {expected}"
            )
        self._step = steps[char]
        self._at += char != is_kept
        return None

    def _value(self, max_chars: int) -> tuple[Any, str] | _More:
        """The value that begins here and its text, once something follows it."""
        begin = self._at
        try:
            value, end = self._json.raw_decode(self._text, begin)
        except (ValueError, RecursionError) as error:
            # Not whole yet, or never valid: the end of the body, or the limit, will tell.
            self._problem = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            if len(self._text) - begin > max_chars:
                raise self._too_long(max_chars) from None
            return _MORE
        if end - begin > max_chars:
            raise self._too_long(max_chars)
        if self._text[end - 1] not in '}"]' and not self._is_last_piece:
            rest = _UNTIL_DELIMITER.match(self._text, end)
            if rest is not None and rest.end() == len(self._text):
                return _MORE  # a number may go on
        self._problem = ""
        self._at = end
        return value, self._text[begin:end]

    def _too_long(self, max_chars: int) -> InvalidRequestError:
        reason = f"longer than {max_chars} characters, or not valid JSON: {self._problem}"
        return InvalidRequestError(f"a value of the body is {reason.rstrip(': ')}{self._place()}")

    def _place(self) -> str:
        return f", after {FIELD}[{self._num_found - 1}]" if self._num_found else ""
