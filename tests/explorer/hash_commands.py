"""The commands of hashes and sets."""

from __future__ import annotations

from tests.explorer.commands import (
    NO_HASH_FLOAT,
    NO_HASH_INTEGER,
    Args,
    ReplyError,
    command,
    read,
    to_float,
    to_integer,
    to_words,
    write,
)
from tests.explorer.memory import Hash, Transaction

# Hashes.


@command
def _hget(t: Transaction, args: Args) -> bytes | None:
    return (read(t, args[0], Hash) or Hash()).get(args[1])


@command
def _hmget(t: Transaction, args: Args) -> list[bytes | None]:
    found = read(t, args[0], Hash) or Hash()
    return [found.get(field) for field in args[1:]]


@command
def _hgetall(t: Transaction, args: Args) -> list[bytes]:
    return [part for item in (read(t, args[0], Hash) or Hash()).items() for part in item]


@command
def _hexists(t: Transaction, args: Args) -> int:
    return int(args[1] in (read(t, args[0], Hash) or Hash()))


@command
def _hlen(t: Transaction, args: Args) -> int:
    return len(read(t, args[0], Hash) or Hash())


@command
def _hkeys(t: Transaction, args: Args) -> list[bytes]:
    return list(read(t, args[0], Hash) or Hash())


@command
def _hset(t: Transaction, args: Args) -> int:
    if len(args) < 3 or len(args) % 2 == 0:
        raise ReplyError("ERR wrong number of arguments for 'hset' command")
    found = Hash(read(t, args[0], Hash) or Hash())
    before = len(found)
    found.update(zip(args[1::2], args[2::2], strict=True))
    write(t, args[0], found)
    return len(found) - before


@command
def _hsetnx(t: Transaction, args: Args) -> int:
    return 0 if _hexists(t, args[:2]) else _hset(t, args)


@command
def _hdel(t: Transaction, args: Args) -> int:
    found = Hash(read(t, args[0], Hash) or Hash())
    num_gone = sum(found.pop(field, None) is not None for field in args[1:])
    if num_gone:
        write(t, args[0], found)
    return num_gone


@command
def _hincrby(t: Transaction, args: Args) -> int:
    amount = to_integer(args[2])
    old = _hget(t, args[:2])
    number = to_integer(b"0" if old is None else old, NO_HASH_INTEGER) + amount
    _hset(t, [args[0], args[1], str(number).encode()])
    return number


@command
def _hincrbyfloat(t: Transaction, args: Args) -> bytes:
    amount = to_float(args[2])
    old = _hget(t, args[:2])
    text = to_words(to_float(b"0" if old is None else old, NO_HASH_FLOAT) + amount)
    _hset(t, [args[0], args[1], text])
    return text


# Sets.


@command
def _sadd(t: Transaction, args: Args) -> int:
    found = read(t, args[0], frozenset) or frozenset()
    more = found.union(args[1:])
    write(t, args[0], more)
    return len(more) - len(found)


@command
def _srem(t: Transaction, args: Args) -> int:
    found = read(t, args[0], frozenset) or frozenset()
    fewer = found.difference(args[1:])
    if len(fewer) < len(found):
        write(t, args[0], fewer)
    return len(found) - len(fewer)


@command
def _smembers(t: Transaction, args: Args) -> list[bytes]:
    return sorted(read(t, args[0], frozenset) or ())


@command
def _sunion(t: Transaction, args: Args) -> list[bytes]:
    return sorted({member for key in args for member in read(t, key, frozenset) or ()})


@command
def _sismember(t: Transaction, args: Args) -> int:
    return int(args[1] in (read(t, args[0], frozenset) or ()))


@command
def _smismember(t: Transaction, args: Args) -> list[int]:
    found = read(t, args[0], frozenset) or ()
    return [int(member in found) for member in args[1:]]


@command
def _scard(t: Transaction, args: Args) -> int:
    return len(read(t, args[0], frozenset) or ())
