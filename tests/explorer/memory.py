"""The content of a Redis as immutable values: a new state shares all values that did not change.

Each value has a number (that of its cell), so that a state of the whole Redis is a few numbers,
cheap to copy, to compare and to hash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Hash(dict[bytes, bytes]):
    """A hash; not modified once it is in a state."""


class Zset(dict[bytes, float]):
    """A sorted set: member -> score."""


class Entry(NamedTuple):
    """One entry of a stream."""

    id: tuple[int, int]
    fields: tuple[bytes, ...]


class Stream(tuple[Entry, ...]):
    """A stream; entries are only appended."""

    __slots__ = ()


Value = bytes | tuple[bytes, ...] | frozenset[bytes] | Hash | Zset | Stream
"""A string, a list, a set, a hash, a sorted set or a stream."""


class Cell(NamedTuple):
    """A key's value, and its TTL in seconds (``None``: no expiry)."""

    key: bytes
    value: Value
    ttl_s: float | None


Database = Mapping[bytes, int]
"""Key -> number of its cell."""


class Cells:
    """The distinct cells of all states."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._cells: list[Cell] = []

    def __getitem__(self, number: int) -> Cell:
        return self._cells[number]

    def number_of(self, cell: Cell) -> int:
        """The number of an equal cell, a new one for a new cell."""
        key = (cell.key, type(cell.value), _comparable(cell.value), cell.ttl_s)
        number = self._numbers.setdefault(key, len(self._cells))
        if number == len(self._cells):
            self._cells.append(cell)
        return number


def _comparable(value: Value) -> Any:
    """A hashable key for a value; the order of a hash's fields does not count."""
    return frozenset(value.items()) if isinstance(value, dict) else value


ConstantOf = Callable[[bytes], Value | bool | None]
"""The constant that a key outside the state reads as; False for a key of the state."""


def no_constants(key: bytes) -> bool:
    """All keys are part of the state."""
    return False


@dataclass(frozen=True, slots=True)
class Published:
    """A published message."""

    channel: bytes
    data: bytes


class Transaction:
    """Reads and writes of one atomic step; ``commit`` gives the state after it.

    Keys for which ``constant_of`` gives a constant read as that, and ignore writes.
    """

    def __init__(
        self,
        cells: Cells,
        before: Database,
        now: tuple[int, int],
        constant_of: ConstantOf = no_constants,
    ) -> None:
        self.now = now
        self.published: list[Published] = []
        self._cells = cells
        self._before = before
        self._constant_of = constant_of
        self._written: dict[bytes, Cell | None] = {}

    def cell(self, key: bytes) -> Cell | None:
        """The key's value and TTL."""
        if key in self._written:
            return self._written[key]
        constant = self._constant_of(key)
        if constant is not False:
            return None if constant is None else Cell(key, constant, None)
        number = self._before.get(key)
        return None if number is None else self._cells[number]

    def is_kept(self, key: bytes) -> bool:
        """False for a key outside the state."""
        return self._constant_of(key) is False

    def put(self, key: bytes, value: Value | None, ttl_s: float | None) -> None:
        """Set the key; ``None`` or an empty collection deletes it."""
        if self.is_kept(key):
            is_empty = value is None or (not isinstance(value, bytes) and not value)
            self._written[key] = None if is_empty else Cell(key, value, ttl_s)

    def keys(self) -> Iterator[bytes]:
        """All keys that exist."""
        for key in {**self._before, **self._written}:
            if self.cell(key) is not None:
                yield key

    def commit(self) -> Database:
        """The state after all writes; the same object if there were none."""
        if not self._written:
            return self._before
        after = dict(self._before)
        for key, cell in self._written.items():
            if cell is None:
                after.pop(key, None)
            else:
                after[key] = self._cells.number_of(cell)
        return after
