"""Strings that know which of their characters are from a request.

A rendered chat template contains its own text and the messages, and ``<|im_end|>`` looks the same
in both. ``InputText`` is a ``str`` whose methods track for each character whether it is input.
Templates see an ordinary string.

A result whose origin cannot be tracked is all input: a control token in it is encoded as text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, SupportsIndex

_OWN, _INPUT = b"\0", b"\1"


class InputText(str):
    """``origin`` has a byte per character: 1 for input, 0 for text of the template."""

    __slots__ = ("origin",)
    origin: bytes

    def __new__(cls, text: object = "", origin: bytes | None = None) -> InputText:
        """``origin`` ``None``: all of ``text`` is input."""
        new = super().__new__(cls, text)
        new.origin = _INPUT * len(new) if origin is None else origin
        return new

    def __str__(self) -> str:
        return self

    def __add__(self, other: str) -> str:
        return concat((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> str:
        return concat((other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, count: SupportsIndex) -> str:
        return _with_origin(super().__mul__(count), self.origin * count.__index__())

    __rmul__ = __mul__

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        found = super().__getitem__(key)
        place = key if isinstance(key, slice) else _slice_of(key.__index__(), len(self))
        return _with_origin(found, self.origin[place])

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def strip(self, chars: str | None = None, /) -> str:
        start = len(self) - len(str.lstrip(self, chars))
        found = str.strip(self, chars)
        return self[start : start + len(found)]

    def lstrip(self, chars: str | None = None, /) -> str:
        return self[len(self) - len(str.lstrip(self, chars)) :]

    def rstrip(self, chars: str | None = None, /) -> str:
        return self[: len(str.rstrip(self, chars))]

    def removeprefix(self, prefix: str, /) -> str:
        return self[len(prefix) :] if prefix and self.startswith(prefix) else self

    def removesuffix(self, suffix: str, /) -> str:
        return self[: len(self) - len(suffix)] if suffix and self.endswith(suffix) else self

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._located(str.split(self, sep, maxsplit), len(sep or ""))

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._located(str.rsplit(self, sep, maxsplit), len(sep or ""))

    def splitlines(self, keepends: bool = False) -> list[str]:
        whole = self._located(str.splitlines(self, True))
        ends = map(len, str.splitlines(self, keepends))
        return [line[:end] for line, end in zip(whole, ends, strict=True)]

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        return self._three(str.partition(self, sep))

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        return self._three(str.rpartition(self, sep))

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> str:
        return replace(self, old, new, count)

    def join(self, parts: Iterable[str], /) -> str:
        return join(self, parts)

    def lower(self) -> str:
        return self._mapped(str.lower)

    def upper(self) -> str:
        return self._mapped(str.upper)

    def title(self) -> str:
        return self._mapped(str.title)

    def capitalize(self) -> str:
        return self._mapped(str.capitalize)

    def swapcase(self) -> str:
        return self._mapped(str.swapcase)

    def casefold(self) -> str:
        return self._mapped(str.casefold)

    def format(self, *args: object, **kwargs: object) -> str:
        return InputText(str.format(self, *args, **kwargs))

    def __mod__(self, values: Any) -> str:
        return InputText(str.__mod__(self, values))

    def _mapped(self, change: Callable[[str], str]) -> str:
        text = change(self)
        return _with_origin(text, self.origin) if len(text) == len(self) else InputText(text)

    def _located(self, parts: list[str], gap: int = 0) -> list[str]:
        """Successive parts of this text, with origin; ``gap`` characters are between two of them.

        With ``gap`` 0, white space may be between them; no part begins with white space then.
        """
        located, start = [], 0
        for part in parts:
            start = start if gap else self.index(part, start)
            located.append(self[start : start + len(part)])
            start += len(part) + gap
        return located

    def _three(self, parts: tuple[str, str, str]) -> tuple[str, str, str]:
        first, second = len(parts[0]), len(parts[0]) + len(parts[1])
        return self[:first], self[first:second], self[second:]


def origin_of(text: str) -> bytes:
    """A byte per character: 1 for input, 0 for text of the template."""
    return text.origin if isinstance(text, InputText) else _OWN * len(text)


def concat(parts: Iterable[str]) -> str:
    """``"".join``, with the origin of each part."""
    found = list(parts)
    text = "".join(found)
    if not any(type(part) is InputText for part in found):
        return text
    return _with_origin(text, b"".join(map(origin_of, found)))


def join(separator: str, parts: Iterable[str]) -> str:
    """``separator.join``, with the origin of each part."""
    found = list(parts)
    if not separator:
        return concat(found)
    spaced = [separator] * (2 * len(found) - 1)
    spaced[::2] = found
    return concat(spaced)


def replace(text: str, old: str, new: str, count: SupportsIndex = -1) -> str:
    """``text.replace``, with the origins of the remaining text and of ``new``."""
    if not any(type(part) is InputText for part in (text, new)):
        return str.replace(text, old, new, count)
    if not old:
        return InputText(str.replace(text, old, new, count))
    return join(new, text.split(old, count))


def as_input(value: Any) -> Any:
    """A JSON value whose strings are input, except the words that templates compare."""
    if isinstance(value, str):
        return InputText(value)
    if isinstance(value, Mapping):
        return {
            InputText(key): item if key in _COMPARED and _is_word(item) else as_input(item)
            for key, item in value.items()
        }
    return [as_input(item) for item in value] if isinstance(value, list | tuple) else value


_COMPARED = frozenset({"role", "type"})
_MAX_WORD_LENGTH = 64


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_WORD_LENGTH and value.isidentifier()


def to_json(
    value: Any,
    indent: int | None,
    separators: tuple[str, str] | None,
    sort_keys: bool,
) -> str:
    """As ``json.dumps`` with ``ensure_ascii=False``; strings keep their origin as a whole."""
    item, colon = separators or (", " if indent is None else ",", ": ")
    return concat(_pieces(value, "" if indent is None else "\n", indent, item, colon, sort_keys))


def _pieces(
    value: Any, line: str, indent: int | None, item: str, colon: str, sort_keys: bool
) -> Iterator[str]:
    if not isinstance(value, dict | list | tuple) or not value:
        text = json.dumps(value, ensure_ascii=False)
        yield InputText(text) if isinstance(value, InputText) else text
        return
    inner = line + " " * (indent or 0)
    is_object = isinstance(value, dict)
    yield "{" if is_object else "["
    pairs = value.items() if isinstance(value, dict) else ((None, one) for one in value)
    for number, (key, one) in enumerate(sorted(pairs) if is_object and sort_keys else pairs):
        yield (item if number else "") + inner
        if is_object:
            text = json.dumps(str.__str__(key) if isinstance(key, str) else key, ensure_ascii=False)
            text = text if isinstance(key, str) else f'"{text}"'
            yield (InputText(text) if isinstance(key, InputText) else text)
            yield colon
        yield from _pieces(one, inner, indent, item, colon, sort_keys)
    yield line + ("}" if is_object else "]")


def _with_origin(text: str, origin: bytes) -> str:
    """The text with its origin; a plain string if nothing is input."""
    if 1 not in origin:
        return str.__str__(text)
    return InputText(text, origin)


def _slice_of(index: int, length: int) -> slice:
    place = index + length if index < 0 else index
    return slice(place, place + 1)
