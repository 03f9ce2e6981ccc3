"""The Redis commands that the product uses, on the values of ``memory``.

Replies are those of RESP2: ``None``, ``int``, ``bytes``, ``Status`` and lists of these. Errors are
raised as ``ReplyError``. A command that is not emulated raises ``NotImplementedError``.
``test_emulation`` compares all commands with a real Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tests.explorer.memory import (
    Hash,
    Stream,
    Transaction,
    Value,
    Zset,
)


class ReplyError(Exception):
    """An error reply of Redis; its text begins with a code."""


class Status(bytes):
    """A simple string reply such as OK."""


OK = Status(b"OK")
WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
NO_INTEGER = "ERR value is not an integer or out of range"
NO_FLOAT = "ERR value is not a valid float"
NO_HASH_INTEGER = "ERR hash value is not an integer"
NO_HASH_FLOAT = "ERR hash value is not a float"
SYNTAX = "ERR syntax error"
TOO_SMALL = "ERR The ID specified in XADD is equal or smaller than the target stream top item"
ZERO_ID = "ERR The ID specified in XADD must be greater than 0-0"

Reply = Any
Args = Sequence[bytes]
Command = Callable[[Transaction, Args], Reply]
COMMANDS: dict[bytes, Command] = {}
V = TypeVar("V", bytes, tuple, frozenset, Hash, Zset, Stream)


def run(transaction: Transaction, words: Args) -> Reply:
    """The reply to one command; ``ReplyError`` for an error."""
    found = COMMANDS.get(words[0].upper())
    if found is None:
        raise NotImplementedError(f"{words[0]!r} is not emulated")
    return found(transaction, words[1:])


def command(run_it: Command) -> Command:
    """Register a function as a command: ``_hget`` is HGET."""
    COMMANDS[run_it.__name__.strip("_").upper().encode()] = run_it
    return run_it


# Reading and writing values of one type.


def read(transaction: Transaction, key: bytes, kind: type[V]) -> V | None:
    cell = transaction.cell(key)
    if cell is None:
        return None
    if type(cell.value) is not kind:
        raise ReplyError(WRONG_TYPE)
    return cell.value


def write(transaction: Transaction, key: bytes, value: Value | None) -> None:
    """Replace a key's value; its expiry stays."""
    cell = transaction.cell(key)
    transaction.put(key, value, cell.ttl_s if cell is not None else None)


def to_integer(word: bytes, error: str = NO_INTEGER) -> int:
    digits = word.removeprefix(b"-")
    if not digits.isdigit() or (digits != b"0" and digits.startswith(b"0")) or word == b"-0":
        raise ReplyError(error)
    return int(word)


def to_float(word: bytes, error: str = NO_FLOAT) -> float:
    try:
        return float(word)
    except ValueError:
        raise ReplyError(error) from None


def to_words(number: float) -> bytes:
    """A float as Redis writes it: the shortest that reads back the same, integers without a dot."""
    return str(int(number)).encode() if number == int(number) else repr(number).encode()


def span(length: int, first: int, last: int) -> tuple[int, int]:
    first = max(first + length, 0) if first < 0 else first
    last = last + length if last < 0 else last
    return first, max(last, -1)
