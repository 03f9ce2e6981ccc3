"""The Redis commands that the product uses, on the values of ``memory``.

Replies are those of RESP2: ``None``, ``int``, ``bytes``, ``Status`` and lists of these. Errors are
raised as ``ReplyError``. A command that is missing here raises ``NotImplementedError``: the
explorer must not guess. ``test_emulation`` holds all of them to a real Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tests.explorer.memory import (
    Hash,
    Published,
    Stream,
    Transaction,
    Value,
    Zset,
)


class ReplyError(Exception):
    """An error that Redis answers with; its text begins with a code."""


class Status(bytes):
    """A reply like OK."""


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
    command = COMMANDS.get(words[0].upper())
    if command is None:
        raise NotImplementedError(f"the explorer's Redis has no {words[0]!r}")
    return command(transaction, words[1:])


def _command(run_it: Command) -> Command:
    COMMANDS[run_it.__name__.strip("_").upper().encode()] = run_it
    return run_it


# Reading and writing values of one type.


def _read(transaction: Transaction, key: bytes, kind: type[V]) -> V | None:
    cell = transaction.cell(key)
    if cell is None:
        return None
    if type(cell.value) is not kind:
        raise ReplyError(WRONG_TYPE)
    return cell.value


def _write(transaction: Transaction, key: bytes, value: Value | None) -> None:
    """Replace what is there, which keeps its expiry."""
    cell = transaction.cell(key)
    transaction.put(key, value, cell.ttl_s if cell is not None else None)


def _integer(word: bytes, error: str = NO_INTEGER) -> int:
    digits = word.removeprefix(b"-")
    if not digits.isdigit() or (digits != b"0" and digits.startswith(b"0")) or word == b"-0":
        raise ReplyError(error)
    return int(word)


def _float(word: bytes, error: str = NO_FLOAT) -> float:
    try:
        return float(word)
    except ValueError:
        raise ReplyError(error) from None


def to_words(number: float) -> bytes:
    """A float as Redis writes it: the shortest that reads back the same, integers without a dot."""
    return str(int(number)).encode() if number == int(number) else repr(number).encode()


# Keys.


@_command
def _exists(t: Transaction, args: Args) -> int:
    return sum(t.cell(key) is not None for key in args)


@_command
def _del(t: Transaction, args: Args) -> int:
    found = [key for key in dict.fromkeys(args) if t.cell(key) is not None]
    for key in found:
        t.put(key, None, None)
    return len(found)


COMMANDS[b"UNLINK"] = _del


@_command
def _expire(t: Transaction, args: Args) -> int:
    return _expire_in(t, args[0], _integer(args[1]), args[2:])


@_command
def _pexpire(t: Transaction, args: Args) -> int:
    return _expire_in(t, args[0], _integer(args[1]) / 1000, args[2:])


@_command
def _expireat(t: Transaction, args: Args) -> int:
    return _expire_in(t, args[0], _integer(args[1]) - t.now[0], args[2:])


def _expire_in(t: Transaction, key: bytes, ttl_s: float, flags: Args) -> int:
    cell = t.cell(key)
    if cell is None:
        return 0
    flag = flags[0].upper() if flags else b""
    if flag not in (b"", b"NX", b"XX", b"GT", b"LT"):
        raise ReplyError(f"ERR Unsupported option {flags[0].decode()}")
    old = cell.ttl_s
    if (
        (flag == b"NX" and old is not None)
        or (flag == b"XX" and old is None)
        or (flag == b"GT" and (old is None or ttl_s <= old))
        or (flag == b"LT" and old is not None and ttl_s >= old)
    ):
        return 0
    t.put(key, cell.value if ttl_s > 0 else None, ttl_s)
    return 1


@_command
def _persist(t: Transaction, args: Args) -> int:
    cell = t.cell(args[0])
    if cell is None or cell.ttl_s is None:
        return 0
    t.put(args[0], cell.value, None)
    return 1


@_command
def _ttl(t: Transaction, args: Args) -> int:
    cell = t.cell(args[0])
    if cell is None:
        return -2
    return -1 if cell.ttl_s is None else int(cell.ttl_s)


@_command
def _time(t: Transaction, args: Args) -> list[bytes]:
    return [str(part).encode() for part in t.now]


@_command
def _ping(t: Transaction, args: Args) -> Status:
    return Status(b"PONG")


@_command
def _watch(t: Transaction, args: Args) -> Status:
    if any(map(t.is_kept, args)):
        raise NotImplementedError("WATCH of what may change")
    return OK


@_command
def _publish(t: Transaction, args: Args) -> int:
    t.published.append(Published(args[0], args[1]))
    return 0


# Strings.


@_command
def _get(t: Transaction, args: Args) -> bytes | None:
    return _read(t, args[0], bytes)


@_command
def _mget(t: Transaction, args: Args) -> list[bytes | None]:
    cells = [t.cell(key) for key in args]
    return [c.value if c is not None and isinstance(c.value, bytes) else None for c in cells]


@_command
def _set(t: Transaction, args: Args) -> Status | bytes | None:
    key, value, flags = args[0], args[1], list(args[2:])
    old, ttl_s = t.cell(key), None
    is_asking = is_keeping = False
    is_wanted = True
    while flags:
        flag = flags.pop(0).upper()
        if flag in (b"EX", b"PX") and flags:
            ttl_s = _integer(flags.pop(0)) / (1 if flag == b"EX" else 1000)
        elif flag in (b"NX", b"XX"):
            is_wanted = (old is None) is (flag == b"NX")
        elif flag == b"GET":
            is_asking = True
        elif flag == b"KEEPTTL":
            is_keeping = True
        else:
            raise ReplyError(SYNTAX)
    before = _read(t, key, bytes) if is_asking else None
    if is_wanted:
        t.put(key, value, old.ttl_s if is_keeping and old is not None else ttl_s)
    return before if is_asking else OK if is_wanted else None


@_command
def _incr(t: Transaction, args: Args) -> int:
    old = _read(t, args[0], bytes)
    number = _integer(b"0" if old is None else old) + 1
    _write(t, args[0], str(number).encode())
    return number


# Hashes.


@_command
def _hget(t: Transaction, args: Args) -> bytes | None:
    return (_read(t, args[0], Hash) or {}).get(args[1])


@_command
def _hmget(t: Transaction, args: Args) -> list[bytes | None]:
    found = _read(t, args[0], Hash) or {}
    return [found.get(field) for field in args[1:]]


@_command
def _hgetall(t: Transaction, args: Args) -> list[bytes]:
    return [part for item in (_read(t, args[0], Hash) or {}).items() for part in item]


@_command
def _hexists(t: Transaction, args: Args) -> int:
    return int(args[1] in (_read(t, args[0], Hash) or {}))


@_command
def _hlen(t: Transaction, args: Args) -> int:
    return len(_read(t, args[0], Hash) or {})


@_command
def _hkeys(t: Transaction, args: Args) -> list[bytes]:
    return list(_read(t, args[0], Hash) or {})


@_command
def _hset(t: Transaction, args: Args) -> int:
    if len(args) < 3 or len(args) % 2 == 0:
        raise ReplyError("ERR wrong number of arguments for 'hset' command")
    found = Hash(_read(t, args[0], Hash) or {})
    before = len(found)
    found.update(zip(args[1::2], args[2::2], strict=True))
    _write(t, args[0], found)
    return len(found) - before


@_command
def _hsetnx(t: Transaction, args: Args) -> int:
    return 0 if _hexists(t, args[:2]) else _hset(t, args)


@_command
def _hdel(t: Transaction, args: Args) -> int:
    found = Hash(_read(t, args[0], Hash) or {})
    num_gone = sum(found.pop(field, None) is not None for field in args[1:])
    if num_gone:
        _write(t, args[0], found)
    return num_gone


@_command
def _hincrby(t: Transaction, args: Args) -> int:
    amount = _integer(args[2])
    old = _hget(t, args[:2])
    number = _integer(b"0" if old is None else old, NO_HASH_INTEGER) + amount
    _hset(t, [args[0], args[1], str(number).encode()])
    return number


@_command
def _hincrbyfloat(t: Transaction, args: Args) -> bytes:
    amount = _float(args[2])
    old = _hget(t, args[:2])
    text = to_words(_float(b"0" if old is None else old, NO_HASH_FLOAT) + amount)
    _hset(t, [args[0], args[1], text])
    return text


# Lists.


@_command
def _llen(t: Transaction, args: Args) -> int:
    return len(_read(t, args[0], tuple) or ())


@_command
def _lrange(t: Transaction, args: Args) -> list[bytes]:
    found = _read(t, args[0], tuple) or ()
    first, last = _span(len(found), _integer(args[1]), _integer(args[2]))
    return list(found[first : last + 1])


def _span(length: int, first: int, last: int) -> tuple[int, int]:
    first = max(first + length, 0) if first < 0 else first
    last = last + length if last < 0 else last
    return first, max(last, -1)


@_command
def _lindex(t: Transaction, args: Args) -> bytes | None:
    found, place = _read(t, args[0], tuple) or (), _integer(args[1])
    return found[place] if -len(found) <= place < len(found) else None


@_command
def _lpos(t: Transaction, args: Args) -> int | None:
    if len(args) > 2:
        raise NotImplementedError("LPOS with options")
    found = _read(t, args[0], tuple) or ()
    return found.index(args[1]) if args[1] in found else None


@_command
def _lpush(t: Transaction, args: Args) -> int:
    found = (*reversed(args[1:]), *(_read(t, args[0], tuple) or ()))
    _write(t, args[0], found)
    return len(found)


@_command
def _rpush(t: Transaction, args: Args) -> int:
    found = (*(_read(t, args[0], tuple) or ()), *args[1:])
    _write(t, args[0], found)
    return len(found)


@_command
def _lpop(t: Transaction, args: Args) -> bytes | list[bytes] | None:
    return _pop(t, args, is_left=True)


@_command
def _rpop(t: Transaction, args: Args) -> bytes | list[bytes] | None:
    return _pop(t, args, is_left=False)


@_command
def _blpop(t: Transaction, args: Args) -> list[bytes] | None:
    """Never waits."""
    for key in args[:-1]:
        item = _pop(t, [key], is_left=True)
        if isinstance(item, bytes):
            return [key, item]
    return None


def _pop(t: Transaction, args: Args, *, is_left: bool) -> bytes | list[bytes] | None:
    found = _read(t, args[0], tuple)
    if found is None:
        return None
    count = _integer(args[1]) if len(args) > 1 else 1
    taken = found[:count] if is_left else found[::-1][:count]
    _write(t, args[0], found[count:] if is_left else found[: max(len(found) - count, 0)])
    return list(taken) if len(args) > 1 else taken[0]


@_command
def _lrem(t: Transaction, args: Args) -> int:
    found, count = _read(t, args[0], tuple) or (), _integer(args[1])
    places = [place for place, item in enumerate(found) if item == args[2]]
    gone = places[count:] if count < 0 else places[:count] if count else places
    if gone:
        _write(t, args[0], tuple(x for place, x in enumerate(found) if place not in gone))
    return len(gone)


@_command
def _ltrim(t: Transaction, args: Args) -> Status:
    _write(t, args[0], tuple(_lrange(t, args)))
    return OK


@_command
def _lmove(t: Transaction, args: Args) -> bytes | None:
    source, target, wherefrom, whereto = args[0], args[1], args[2].upper(), args[3].upper()
    if _read(t, source, tuple) is None:
        return None
    _read(t, target, tuple)
    item = _pop(t, [source], is_left=wherefrom == b"LEFT")
    assert isinstance(item, bytes)
    (_lpush if whereto == b"LEFT" else _rpush)(t, [target, item])
    return item


# Sets.


@_command
def _sadd(t: Transaction, args: Args) -> int:
    found = _read(t, args[0], frozenset) or frozenset()
    more = found.union(args[1:])
    _write(t, args[0], more)
    return len(more) - len(found)


@_command
def _srem(t: Transaction, args: Args) -> int:
    found = _read(t, args[0], frozenset) or frozenset()
    fewer = found.difference(args[1:])
    if len(fewer) < len(found):
        _write(t, args[0], fewer)
    return len(found) - len(fewer)


@_command
def _smembers(t: Transaction, args: Args) -> list[bytes]:
    return sorted(_read(t, args[0], frozenset) or ())


@_command
def _sunion(t: Transaction, args: Args) -> list[bytes]:
    return sorted({member for key in args for member in _read(t, key, frozenset) or ()})


@_command
def _sismember(t: Transaction, args: Args) -> int:
    return int(args[1] in (_read(t, args[0], frozenset) or ()))


@_command
def _smismember(t: Transaction, args: Args) -> list[int]:
    found = _read(t, args[0], frozenset) or ()
    return [int(member in found) for member in args[1:]]


@_command
def _scard(t: Transaction, args: Args) -> int:
    return len(_read(t, args[0], frozenset) or ())
