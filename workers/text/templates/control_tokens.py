"""Encodes rendered chat templates: control tokens take effect only if the template wrote them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from workers.engines.base import Tokenizer
from workers.text.templates.input_text import origin_of

_MIN_LENGTH = 2  # characters of a control token's text; shorter ones are ignored


@runtime_checkable
class BreakingTokenizer(Protocol):
    """A tokenizer that can encode a text in which some control tokens are only text."""

    def encode_broken(self, parts: Sequence[str]) -> list[int] | None:
        """Token ids of the joined parts, without a control token across two of them.

        The rest gets the same tokens as without the breaks. ``None`` if that is not possible.
        """
        ...


class ControlTokens:
    """The texts of a tokenizer's control tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        found = {tokenizer.control_text(token_id) for token_id in range(tokenizer.vocab_size)}
        texts = sorted((text for text in found if len(text) >= _MIN_LENGTH), key=len, reverse=True)
        self._longest = len(texts[0]) if texts else 0
        self._pattern = re.compile("|".join(map(re.escape, texts)) or r"(?!)")
        self._prefixes = {text[:i] for text in texts for i in range(_MIN_LENGTH, len(text))}
        self._parts = {
            text[i:j]
            for text in texts
            for i in range(len(text) - 1)
            for j in range(i + _MIN_LENGTH, len(text) + 1)
        }

    def may_be_in(self, value: Any) -> bool:
        """Whether strings of a JSON value could form a control token in a rendered template.

        A string may contain a control token, or only a part of one.
        """
        return any(map(self._is_suspect, _strings(value)))

    def _is_suspect(self, text: str) -> bool:
        if len(text) <= self._longest and text in self._parts:
            return True
        ends = (text[-length:] for length in range(_MIN_LENGTH, min(self._longest, len(text) + 1)))
        return self._pattern.search(text) is not None or any(e in self._prefixes for e in ends)

    def encode(self, rendered: str) -> list[int]:
        """Token ids of a rendered template.

        A control token with characters of input (``input_text``) is encoded as text, together with
        the text around it up to the template's own control tokens if the tokenizer has no
        ``encode_broken``.
        """
        if isinstance(self._tokenizer, BreakingTokenizer):
            ids = self._tokenizer.encode_broken(list(self._broken(rendered)))
            if ids is not None and self._num_control(ids) == self._num_own(rendered):
                return ids
        ids = []
        for text, is_plain in self._spans(rendered):
            ids += self._tokenizer.encode(text, add_special=False, parse_special=not is_plain)
        return ids

    def _broken(self, rendered: str) -> Iterator[str]:
        """The text, broken inside each control token with characters of input."""
        text, start = str.__str__(rendered), 0
        for match, is_own in self._matches(rendered):
            if not is_own:
                yield text[start : match.start() + 1]
                start = match.start() + 1
        yield text[start:]

    def _num_own(self, rendered: str) -> int:
        return sum(is_own for _, is_own in self._matches(rendered))

    def _num_control(self, ids: list[int]) -> int:
        return sum(len(self._tokenizer.control_text(one)) >= _MIN_LENGTH for one in ids)

    def _matches(self, rendered: str) -> Iterator[tuple[re.Match[str], bool]]:
        """Each control token in the text, and whether the template wrote all of it."""
        origin = origin_of(rendered)
        for match in self._pattern.finditer(str.__str__(rendered)):
            yield match, 1 not in origin[match.start() : match.end()]

    def _spans(self, rendered: str) -> Iterator[tuple[str, bool]]:
        """Successive parts of the text, and whether to encode them without control tokens."""
        text = str.__str__(rendered)
        start = end_of_own = 0  # end_of_own: end of the template's last control token
        is_plain = False
        for match, is_own in self._matches(rendered):
            if not is_own:
                if not is_plain:
                    yield from _part(text, start, end_of_own, is_plain=False)
                    start, is_plain = end_of_own, True
            else:
                if is_plain:
                    yield from _part(text, start, match.start(), is_plain=True)
                    start, is_plain = match.start(), False
                end_of_own = match.end()
        yield from _part(text, start, len(text), is_plain=is_plain)


def _part(text: str, start: int, end: int, *, is_plain: bool) -> Iterator[tuple[str, bool]]:
    if start < end:
        yield text[start:end], is_plain


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from value
        yield from _all_strings(value.values())
    elif isinstance(value, list | tuple):
        yield from _all_strings(value)


def _all_strings(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        yield from _strings(value)
