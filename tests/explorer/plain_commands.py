"""The commands of keys, of strings, and of the server itself."""

from __future__ import annotations

from tests.explorer.commands import (
    COMMANDS,
    OK,
    SYNTAX,
    Args,
    ReplyError,
    Status,
    command,
    read,
    to_integer,
    write,
)
from tests.explorer.memory import Published, Transaction

# Keys.


@command
def _exists(t: Transaction, args: Args) -> int:
    return sum(t.cell(key) is not None for key in args)


@command
def _del(t: Transaction, args: Args) -> int:
    found = [key for key in dict.fromkeys(args) if t.cell(key) is not None]
    for key in found:
        t.put(key, None, None)
    return len(found)


COMMANDS[b"UNLINK"] = _del


@command
def _expire(t: Transaction, args: Args) -> int:
    return _expire_in(t, args[0], to_integer(args[1]), args[2:])


@command
def _pexpire(t: Transaction, args: Args) -> int:
    return _expire_in(t, args[0], to_integer(args[1]) / 1000, args[2:])


@command
def _expireat(t: Transaction, args: Args) -> int:
    return _expire_in(t, args[0], to_integer(args[1]) - t.now[0], args[2:])


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


@command
def _persist(t: Transaction, args: Args) -> int:
    cell = t.cell(args[0])
    if cell is None or cell.ttl_s is None:
        return 0
    t.put(args[0], cell.value, None)
    return 1


@command
def _ttl(t: Transaction, args: Args) -> int:
    cell = t.cell(args[0])
    if cell is None:
        return -2
    return -1 if cell.ttl_s is None else int(cell.ttl_s)


@command
def _time(t: Transaction, args: Args) -> list[bytes]:
    return [str(part).encode() for part in t.now]


@command
def _ping(t: Transaction, args: Args) -> Status:
    return Status(b"PONG")


@command
def _watch(t: Transaction, args: Args) -> Status:
    if any(map(t.is_kept, args)):
        raise NotImplementedError("WATCH of what may change")
    return OK


@command
def _publish(t: Transaction, args: Args) -> int:
    t.published.append(Published(args[0], args[1]))
    return 0


# Strings.


@command
def _get(t: Transaction, args: Args) -> bytes | None:
    return read(t, args[0], bytes)


@command
def _mget(t: Transaction, args: Args) -> list[bytes | None]:
    cells = [t.cell(key) for key in args]
    return [c.value if c is not None and isinstance(c.value, bytes) else None for c in cells]


@command
def _set(t: Transaction, args: Args) -> Status | bytes | None:
    key, value, flags = args[0], args[1], list(args[2:])
    old, ttl_s = t.cell(key), None
    is_asking = is_keeping = False
    is_wanted = True
    while flags:
        flag = flags.pop(0).upper()
        if flag in (b"EX", b"PX") and flags:
            ttl_s = to_integer(flags.pop(0)) / (1 if flag == b"EX" else 1000)
        elif flag in (b"NX", b"XX"):
            is_wanted = (old is None) is (flag == b"NX")
        elif flag == b"GET":
            is_asking = True
        elif flag == b"KEEPTTL":
            is_keeping = True
        else:
            raise ReplyError(SYNTAX)
    before = read(t, key, bytes) if is_asking else None
    if is_wanted:
        t.put(key, value, old.ttl_s if is_keeping and old is not None else ttl_s)
    return before if is_asking else OK if is_wanted else None


@command
def _incr(t: Transaction, args: Args) -> int:
    old = read(t, args[0], bytes)
    number = to_integer(b"0" if old is None else old) + 1
    write(t, args[0], str(number).encode())
    return number
