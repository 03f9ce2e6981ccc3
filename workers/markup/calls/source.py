"""A text that arrives in pieces, and readers that wait for what they need of it.

A reader is a generator: it yields what it has found, and ``None`` where it needs more text.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

BLANKS = " \n\t\r"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Begun:
    """A call has begun; ``id`` is the model's own, if it gave one."""

    name: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """A piece of the begun call's arguments, JSON text."""

    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The begun call is complete."""


CallEvent = Begun | Written | Ended
Steps = Generator[CallEvent | None, None, T]


class UnreadableError(ValueError):
    """The text is no call in this format."""


class CutError(UnreadableError):
    """The text ends inside a call."""


class Source:
    """What has arrived, and how far it is read; ``is_over``: nothing more will come."""

    def __init__(self) -> None:
        self.text = ""
        self.place = 0
        self.is_over = False

    @property
    def rest(self) -> str:
        return self.text[self.place :]

    def more(self) -> Steps[None]:
        """Wait for text; raises ``CutError`` when none will come."""
        if self.is_over:
            raise CutError("the text ends inside a call")
        yield None

    def has(self, count: int = 1) -> Steps[bool]:
        """Whether so many characters are left."""
        while len(self.text) - self.place < count:
            if self.is_over:
                return False
            yield None
        return True

    def next(self) -> Steps[str]:
        """The next character, which stays; "" at the end of the text."""
        return self.text[self.place] if (yield from self.has()) else ""

    def skip_blanks(self, also: str = "") -> Steps[None]:
        while (one := (yield from self.next())) and one in BLANKS + also:
            self.place += 1

    def starts(self, wanted: str) -> Steps[bool]:
        """Whether the rest begins with ``wanted``; waits only while it may."""
        while not self.text.startswith(wanted, self.place):
            rest = self.text[self.place : self.place + len(wanted)]
            if self.is_over or not wanted.startswith(rest):
                return False
            yield None
        return True

    def take(self, wanted: str) -> Steps[bool]:
        """Read ``wanted`` if it is next."""
        is_there = yield from self.starts(wanted)
        self.place += len(wanted) if is_there else 0
        return is_there

    def expect(self, *wanted: str) -> Steps[str]:
        """Read the one of these that is next."""
        for one in wanted:
            if (yield from self.take(one)):
                return one
        if self.is_over and any(one.startswith(self.rest) for one in wanted):
            raise CutError(f"the text ends before {wanted[0]!r}")
        raise UnreadableError(f"{wanted[0]!r} is missing")

    def until(self, end: str) -> Steps[str]:
        """The text before ``end``, which is read too."""
        begun = seen = self.place
        while (found := self.text.find(end, seen)) < 0:
            seen = max(begun, len(self.text) - len(end) + 1)
            yield from self.more()
        self.place = found + len(end)
        return self.text[begun:found]

    def until_any(self, stops: str) -> Steps[str]:
        """The text before the first of these characters, which stays."""
        begun = end = self.place
        while True:
            while end < len(self.text) and self.text[end] not in stops:
                end += 1
            if end < len(self.text):
                self.place = end
                return self.text[begun:end]
            yield from self.more()
