"""A text that arrives in pieces, with operations for readers that wait for more of it.

A reader is a generator: it yields events, and ``None`` when it needs more text.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

BLANKS = " \n\t\r"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Started:
    """A call has started; ``id`` is set if the model wrote one."""

    name: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """A piece of the current call's arguments, as JSON text."""

    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The current call is complete."""


CallEvent = Started | Written | Ended
Steps = Generator[CallEvent | None, None, T]


class UnreadableError(ValueError):
    """The text is not a call in this format."""


class CutError(UnreadableError):
    """The text ends inside a call."""


class Source:
    """The text so far, read up to ``place``; ``is_over``: no more text will arrive."""

    def __init__(self) -> None:
        self.text = ""
        self.place = 0
        self.is_over = False

    @property
    def rest(self) -> str:
        return self.text[self.place :]

    def more(self) -> Steps[None]:
        """Wait for more text; raises ``CutError`` at its end."""
        if self.is_over:
            raise CutError("the text ends inside a call")
        yield None

    def has(self, count: int = 1) -> Steps[bool]:
        """Wait for ``count`` unread characters; False if the text ends before."""
        while len(self.text) - self.place < count:
            if self.is_over:
                return False
            yield None
        return True

    def next(self) -> Steps[str]:
        """The next character, without reading it; "" at the end of the text."""
        return self.text[self.place] if (yield from self.has()) else ""

    def skip_blanks(self, also: str = "") -> Steps[None]:
        while (one := (yield from self.next())) and one in BLANKS + also:
            self.place += 1

    def starts(self, wanted: str) -> Steps[bool]:
        """Whether the unread text begins with ``wanted``; waits only as long as needed."""
        while not self.text.startswith(wanted, self.place):
            rest = self.text[self.place : self.place + len(wanted)]
            if self.is_over or not wanted.startswith(rest):
                return False
            yield None
        return True

    def take(self, wanted: str) -> Steps[bool]:
        """Read ``wanted`` if it is next; returns whether it was."""
        is_there = yield from self.starts(wanted)
        self.place += len(wanted) if is_there else 0
        return is_there

    def expect(self, *wanted: str) -> Steps[str]:
        """Read the one of ``wanted`` that is next; raises ``UnreadableError`` if none is."""
        for one in wanted:
            if (yield from self.take(one)):
                return one
        if self.is_over and any(one.startswith(self.rest) for one in wanted):
            raise CutError(f"the text ends before {wanted[0]!r}")
        raise UnreadableError(f"{wanted[0]!r} is missing")

    def until(self, end: str) -> Steps[str]:
        """Read the text up to ``end`` and ``end`` itself; returns the text."""
        start = seen = self.place
        while (found := self.text.find(end, seen)) < 0:
            seen = max(start, len(self.text) - len(end) + 1)
            yield from self.more()
        self.place = found + len(end)
        return self.text[start:found]

    def until_any(self, stops: str) -> Steps[str]:
        """Read and return the text before the first of the characters ``stops``."""
        start = end = self.place
        while True:
            while end < len(self.text) and self.text[end] not in stops:
                end += 1
            if end < len(self.text):
                self.place = end
                return self.text[start:end]
            yield from self.more()
