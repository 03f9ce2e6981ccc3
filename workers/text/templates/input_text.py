"""Strings that know which of their characters are from a request.

A rendered chat template contains its own text and the messages, and ``<|im_end|>`` looks the same
in both. ``InputText`` is a ``str`` whose methods track for each character whether it is input.
Templates see an ordinary string.

A result whose origin cannot be tracked is all input: a control token in it is encoded as text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, SupportsIndex

_OWN, _INPUT = b"\0", b"\1"
_LONGEST_ROLE = 64


class InputText(str):
    """A text that is input, or (after concatenation) partly text of the template."""

    # Most are entirely input; then no origin is stored.
    _mixed_origin: bytes | None = None

    @property
    def origin(self) -> bytes:
        """A byte per character: 1 for input, 0 for text of the template."""
        return _INPUT * len(self) if self._mixed_origin is None else self._mixed_origin

    @property
    def is_whole(self) -> bool:
        """Whether all of it is input."""
        return self._mixed_origin is None

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
        found = str.__getitem__(self, key)
        if self._mixed_origin is None:
            return InputText(found)
        place = key if isinstance(key, slice) else _slice_of(key.__index__(), len(self))
        return _with_origin(found, self._mixed_origin[place])

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def strip(self, chars: str | None = None, /) -> str:
        found = str.strip(self, chars)
        if self._mixed_origin is None:
            return InputText(found)
        start = len(self) - len(str.lstrip(self, chars))
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
        if self._mixed_origin is None:
            return [InputText(line) for line in str.splitlines(self, keepends)]
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
        return percent(self, values)

    def _mapped(self, change: Callable[[str], str]) -> str:
        return in_place_of(self, change(self))

    def _located(self, parts: list[str], gap: int = 0) -> list[str]:
        """Successive parts of this text, with origin; ``gap`` characters are between two of them.

        With ``gap`` 0, white space may be between them; no part begins with white space then.
        """
        if self._mixed_origin is None:
            return [InputText(part) for part in parts]
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
    if type(text) is not InputText:
        return _OWN * len(text)
    return text._mixed_origin or _INPUT * len(text)


def in_place_of(text: str, changed: str) -> str:
    """``changed`` with the origin of ``text``, per character if the lengths are equal."""
    if type(text) is not InputText:
        return changed
    is_followed = not text.is_whole and len(changed) == len(text)
    return _with_origin(changed, text.origin) if is_followed else InputText(changed)


def concat(parts: Iterable[str]) -> str:
    """``"".join``, with the origin of each part."""
    found = list(parts)
    text = "".join(found)
    if InputText not in map(type, found):
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
    if InputText not in (type(text), type(new)):
        return str.replace(text, old, new, count)
    if old not in text:
        return text
    if not old:
        return InputText(str.replace(text, old, new, count))
    return join(new, text.split(old, count))


_FIELD = re.compile(r"%(?:\((?P<name>[^)]*)\))?(?P<form>[#0\- +]*\d*(?:\.\d+)?[hlL]?[a-zA-Z%])")


def percent(form: str, values: Any) -> str:
    """``form % values``, with the origins of the form and of each value."""
    text = str.__mod__(form, values)
    followed = concat(_percent_pieces(form, values))
    return followed if followed == text else InputText(text)


def _percent_pieces(form: str, values: Any) -> Iterator[str]:
    in_turn = iter(values if isinstance(values, tuple) else (values,))
    place = 0
    for field in _FIELD.finditer(form):
        yield form[place : field.start()]
        place = field.end()
        if field["form"] == "%":
            yield "%"
        else:
            value = next(in_turn) if field["name"] is None else values[field["name"]]
            write = partial(str.__mod__, "%" + field["form"])
            yield formatted(value, field["form"] == "s", write)
    yield form[place:]


def formatted(value: Any, is_as_it_is: bool, write: Callable[[Any], str]) -> str:
    """The text of one formatted value: input unless the value is a number or the template's."""
    if is_as_it_is and isinstance(value, str):
        return value
    is_own = value is None or type(value) in (str, int, float, bool)
    return write(value) if is_own else InputText(write(value))


def as_input(value: Any) -> Any:
    """A JSON value whose strings are input."""
    if isinstance(value, str):
        return InputText(value)
    if isinstance(value, dict):
        return {InputText(key): as_input(item) for key, item in value.items()}
    return [as_input(item) for item in value] if isinstance(value, list | tuple) else value


def as_input_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message whose values are input except the role: templates write ``<|user|>`` as ``<|``,
    the role and ``|>``."""
    marked = {key: as_input(value) for key, value in message.items()}
    role = message.get("role")
    if isinstance(role, str) and len(role) <= _LONGEST_ROLE and role.isidentifier():
        marked["role"] = role
    return marked


def _with_origin(text: str, origin: bytes) -> str:
    """The text with its origin; a plain string if nothing is input."""
    if _INPUT not in origin:
        return str.__str__(text)
    made = InputText(text)
    if _OWN in origin:
        made._mixed_origin = origin
    return made


def _slice_of(index: int, length: int) -> slice:
    place = index + length if index < 0 else index
    return slice(place, place + 1)
