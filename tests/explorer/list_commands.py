"""The commands of lists."""

from __future__ import annotations

from tests.explorer.commands import (
    OK,
    Args,
    Status,
    command,
    read,
    span,
    to_integer,
    write,
)
from tests.explorer.memory import Transaction

# Lists.


@command
def _llen(t: Transaction, args: Args) -> int:
    return len(read(t, args[0], tuple) or ())


@command
def _lrange(t: Transaction, args: Args) -> list[bytes]:
    found = read(t, args[0], tuple) or ()
    first, last = span(len(found), to_integer(args[1]), to_integer(args[2]))
    return list(found[first : last + 1])


@command
def _lindex(t: Transaction, args: Args) -> bytes | None:
    found, index = read(t, args[0], tuple) or (), to_integer(args[1])
    return found[index] if -len(found) <= index < len(found) else None


@command
def _lpos(t: Transaction, args: Args) -> int | None:
    if len(args) > 2:
        raise NotImplementedError("LPOS with options")
    found = read(t, args[0], tuple) or ()
    return found.index(args[1]) if args[1] in found else None


@command
def _lpush(t: Transaction, args: Args) -> int:
    found = (*reversed(args[1:]), *(read(t, args[0], tuple) or ()))
    write(t, args[0], found)
    return len(found)


@command
def _rpush(t: Transaction, args: Args) -> int:
    found = (*(read(t, args[0], tuple) or ()), *args[1:])
    write(t, args[0], found)
    return len(found)


@command
def _lpop(t: Transaction, args: Args) -> bytes | list[bytes] | None:
    return _pop(t, args, is_left=True)


@command
def _rpop(t: Transaction, args: Args) -> bytes | list[bytes] | None:
    return _pop(t, args, is_left=False)


@command
def _blpop(t: Transaction, args: Args) -> list[bytes] | None:
    """As if its time-out were 0: it does not block."""
    for key in args[:-1]:
        item = _pop(t, [key], is_left=True)
        if isinstance(item, bytes):
            return [key, item]
    return None


def _pop(t: Transaction, args: Args, *, is_left: bool) -> bytes | list[bytes] | None:
    found = read(t, args[0], tuple)
    if found is None:
        return None
    count = to_integer(args[1]) if len(args) > 1 else 1
    taken = found[:count] if is_left else found[::-1][:count]
    write(t, args[0], found[count:] if is_left else found[: max(len(found) - count, 0)])
    return list(taken) if len(args) > 1 else taken[0]


@command
def _lrem(t: Transaction, args: Args) -> int:
    found, count = read(t, args[0], tuple) or (), to_integer(args[1])
    places = [index for index, item in enumerate(found) if item == args[2]]
    removed = places[count:] if count < 0 else places[:count] if count else places
    if removed:
        write(t, args[0], tuple(x for index, x in enumerate(found) if index not in removed))
    return len(removed)


@command
def _ltrim(t: Transaction, args: Args) -> Status:
    write(t, args[0], tuple(_lrange(t, args)))
    return OK


@command
def _lmove(t: Transaction, args: Args) -> bytes | None:
    source, target, wherefrom, whereto = args[0], args[1], args[2].upper(), args[3].upper()
    if read(t, source, tuple) is None:
        return None
    read(t, target, tuple)
    item = _pop(t, [source], is_left=wherefrom == b"LEFT")
    assert isinstance(item, bytes)
    (_lpush if whereto == b"LEFT" else _rpush)(t, [target, item])
    return item
