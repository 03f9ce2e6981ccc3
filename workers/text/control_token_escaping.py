"""Keeps what clients write in a chat from acting as control tokens of the model.

A chat template mixes the text of control tokens with what people and tools wrote, and afterwards
``<|im_end|>`` looks the same whoever wrote it. Where it matters, the template is rendered from
marked messages: a private-use character stands behind each of their characters but white space, so
that ``strip`` and ``split`` work as before, and tells the two apart in the result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobs.contract.errors import InvalidRequestError
from workers.engines.base import Tokenizer

_PRIVATE_USE = range(0xE000, 0xF900)
_OWN_WORDS = frozenset({"role", "type"})  # templates compare these
_ARGUMENTS = "arguments"

Message = Mapping[str, Any]


def has_control_tokens(messages: Sequence[Message], tokenizer: Tokenizer) -> bool:
    """Whether anything in the messages would be read as a control token.

    They are joined without a gap: a template may do that with the halves of one.
    """
    text = "".join(_texts(messages))
    ids = tokenizer.encode(text, add_special=False, parse_special=True)
    if all(map(tokenizer.piece, set(ids))):
        return False  # each token has a text: the quick and usual way
    return ids != tokenizer.encode(text, add_special=False, parse_special=False)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key == _ARGUMENTS and isinstance(item, Mapping):
                yield from item  # these names are written by a model
            if key not in _OWN_WORDS:
                yield from _texts(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _texts(item)


class Marker:
    """Marks messages with a character that ``rendered``, their plain rendering, does not hold."""

    def __init__(self, rendered: str) -> None:
        free = (chr(code) for code in _PRIVATE_USE if chr(code) not in rendered)
        mark = next(free, None)
        if mark is None:
            raise InvalidRequestError("the messages hold every private-use character", "messages")
        self._mark = mark
        self._escaped = f"\\u{ord(mark):04x}"  # as a template's JSON may have it
        self._written = re.compile(rf"(?:[^\s{mark}]{mark}\s*)+")

    def mark(self, value: Any) -> Any:
        """The messages, or a part of them, with marks behind their characters."""
        if isinstance(value, str):
            return re.sub(r"(\S)", rf"\1{self._mark}", value)
        if isinstance(value, Mapping):
            return {k: v if k in _OWN_WORDS else self._mark_item(k, v) for k, v in value.items()}
        return [self.mark(item) for item in value] if isinstance(value, list) else value

    def _mark_item(self, key: str, value: Any) -> Any:
        if key == _ARGUMENTS and isinstance(value, Mapping):
            return {self.mark(name): self.mark(item) for name, item in value.items()}
        return self.mark(value)

    def encode(self, rendered: str, tokenizer: Tokenizer) -> list[int]:
        """Token ids of what the template made of marked messages: only its own text is parsed.

        A tokenizer that puts a space in front of a text does so in front of each part.
        """
        ids: list[int] = []
        for part, is_written in self._parts(rendered.replace(self._escaped, self._mark)):
            ids += tokenizer.encode(part, add_special=False, parse_special=not is_written)
        return ids

    def _parts(self, rendered: str) -> Iterator[tuple[str, bool]]:
        """The text without its marks, and for each part whether a client wrote it."""
        place = 0
        for match in self._written.finditer(rendered):
            yield from self._part(rendered[place : match.start()], is_written=False)
            yield from self._part(match.group(), is_written=True)
            place = match.end()
        yield from self._part(rendered[place:], is_written=False)

    def _part(self, text: str, is_written: bool) -> Iterator[tuple[str, bool]]:
        plain = text.replace(self._mark, "")
        if plain:
            yield plain, is_written
