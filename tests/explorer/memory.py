"""What a Redis holds, as values that never change: a new state shares all that stayed the same.

Every value is known by a number (its cell), so that a state of the whole Redis is a few numbers,
cheap to copy, to compare and to look up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Hash(dict[bytes, bytes]):
    """A hash; never changed once it is in a state."""


class Zset(dict[bytes, float]):
    """A sorted set: member -> score."""


class Entry(NamedTuple):
    """One entry of a stream."""

    id: tuple[int, int]
    fields: tuple[bytes, ...]


class Stream(tuple[Entry, ...]):
    """A stream that nothing is ever taken out of."""

    __slots__ = ()


Value = bytes | tuple[bytes, ...] | frozenset[bytes] | Hash | Zset | Stream
"""A string, a list, a set, a hash, a sorted set or a stream."""


class Cell(NamedTuple):
    """What stands under a key, and for how many seconds from now (``None``: for ever)."""

    key: bytes
    value: Value
    ttl_s: float | None


Database = Mapping[bytes, int]
"""Key -> number of its cell."""


class Cells:
    """All cells that any state has, each once."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._cells: list[Cell] = []

    def __getitem__(self, number: int) -> Cell:
        return self._cells[number]

    def number_of(self, cell: Cell) -> int:
        """The number of an equal cell, a new one for a new cell."""
        known = (cell.key, type(cell.value), _comparable(cell.value), cell.ttl_s)
        number = self._numbers.setdefault(known, len(self._cells))
        if number == len(self._cells):
            self._cells.append(cell)
        return number


def _comparable(value: Value) -> Any:
    """The same for equal values, in whatever order a hash got its fields."""
    return frozenset(value.items()) if isinstance(value, dict) else value


Sight = Callable[[bytes], Value | bool | None]
"""Of a key that is left out of states: what it seems to hold. False: the key is not left out."""


def see_all(key: bytes) -> bool:
    """No key is left out."""
    return False


@dataclass(frozen=True, slots=True)
class Published:
    """A message that nobody keeps."""

    channel: bytes
    data: bytes


class Transaction:
    """Reads and writes of one atomic step; ``commit`` gives the state after it.

    Keys that ``sight`` leaves out seem to hold what it says, and writing to them does nothing.
    """

    def __init__(
        self, cells: Cells, before: Database, now: tuple[int, int], sight: Sight = see_all
    ) -> None:
        self.now = now
        self.published: list[Published] = []
        self._cells = cells
        self._before = before
        self._sight = sight
        self._written: dict[bytes, Cell | None] = {}

    def cell(self, key: bytes) -> Cell | None:
        """What stands under the key."""
        if key in self._written:
            return self._written[key]
        seen = self._sight(key)
        if seen is not False:
            return None if seen is None else Cell(key, seen, None)
        number = self._before.get(key)
        return None if number is None else self._cells[number]

    def is_kept(self, key: bytes) -> bool:
        """False for a key that is left out of states."""
        return self._sight(key) is False

    def put(self, key: bytes, value: Value | None, ttl_s: float | None) -> None:
        """Put it there; nothing, or an empty collection, takes the key away."""
        if self.is_kept(key):
            is_empty = value is None or (not isinstance(value, bytes) and not value)
            self._written[key] = None if is_empty else Cell(key, value, ttl_s)

    def keys(self) -> Iterator[bytes]:
        """All keys that hold something."""
        for key in {**self._before, **self._written}:
            if self.cell(key) is not None:
                yield key

    def commit(self) -> Database:
        """The state after all that was written; the state before if nothing was."""
        if not self._written:
            return self._before
        after = dict(self._before)
        for key, cell in self._written.items():
            if cell is None:
                after.pop(key, None)
            else:
                after[key] = self._cells.number_of(cell)
        return after
