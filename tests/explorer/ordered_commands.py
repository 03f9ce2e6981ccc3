"""The commands of sorted sets and streams."""

from __future__ import annotations

import math

from tests.explorer.commands import (
    COMMANDS,
    SYNTAX,
    TOO_SMALL,
    ZERO_ID,
    Args,
    ReplyError,
    command,
    read,
    span,
    to_float,
    to_integer,
    to_words,
    write,
)
from tests.explorer.memory import Entry, Stream, Transaction, Zset

NO_BOUND = "ERR min or max is not a float"
NO_STREAM_ID = "ERR Invalid stream ID specified as stream command argument"
_LAST = (1 << 64) - 1


# Sorted sets.


@command
def _zadd(t: Transaction, args: Args) -> int:
    rest, flags = list(args[1:]), set()
    while rest and rest[0].upper() in (b"NX", b"XX", b"GT", b"LT", b"CH"):
        flags.add(rest.pop(0).upper())
    if not rest or len(rest) % 2:
        raise ReplyError(SYNTAX)
    if flags & {b"GT", b"LT"}:
        raise NotImplementedError("ZADD GT or LT")
    pairs = [(member, to_float(score)) for score, member in zip(rest[::2], rest[1::2], strict=True)]
    found = Zset(read(t, args[0], Zset) or Zset())
    num_new = num_changed = 0
    for member, score in pairs:
        is_new = member not in found
        if is_new if b"XX" in flags else not is_new and b"NX" in flags:
            continue
        num_new += is_new
        num_changed += is_new or found[member] != score
        found[member] = score
    if num_changed:
        write(t, args[0], found)
    return num_changed if b"CH" in flags else num_new


@command
def _zrem(t: Transaction, args: Args) -> int:
    found = Zset(read(t, args[0], Zset) or Zset())
    num_gone = sum(found.pop(member, None) is not None for member in args[1:])
    if num_gone:
        write(t, args[0], found)
    return num_gone


@command
def _zcard(t: Transaction, args: Args) -> int:
    return len(read(t, args[0], Zset) or Zset())


@command
def _zscore(t: Transaction, args: Args) -> bytes | None:
    score = (read(t, args[0], Zset) or Zset()).get(args[1])
    return None if score is None else to_words(score)


def _sorted(t: Transaction, key: bytes) -> list[tuple[bytes, float]]:
    found = read(t, key, Zset) or Zset()
    return sorted(found.items(), key=lambda item: (item[1], item[0]))


@command
def _zrange(t: Transaction, args: Args) -> list[bytes]:
    if len(args) > 3 and [a.upper() for a in args[3:]] != [b"WITHSCORES"]:
        raise NotImplementedError("ZRANGE with options")
    rows = _sorted(t, args[0])
    first, last = span(len(rows), to_integer(args[1]), to_integer(args[2]))
    return _shown(rows[first : last + 1], len(args) > 3)


@command
def _zrangebyscore(t: Transaction, args: Args) -> list[bytes]:
    return _by_score(t, args[0], args[1], args[2], args[3:], is_reversed=False)


@command
def _zrevrangebyscore(t: Transaction, args: Args) -> list[bytes]:
    return _by_score(t, args[0], args[2], args[1], args[3:], is_reversed=True)


@command
def _zcount(t: Transaction, args: Args) -> int:
    return len(_between(t, args[0], args[1], args[2]))


@command
def _zremrangebyscore(t: Transaction, args: Args) -> int:
    removed = [member for member, _ in _between(t, args[0], args[1], args[2])]
    return _zrem(t, [args[0], *removed])


def _by_score(
    t: Transaction, key: bytes, low: bytes, high: bytes, options: Args, *, is_reversed: bool
) -> list[bytes]:
    rows, rest = _between(t, key, low, high), list(options)
    if is_reversed:
        rows.reverse()
    has_scores = False
    while rest:
        option = rest.pop(0).upper()
        if option == b"WITHSCORES":
            has_scores = True
        elif option == b"LIMIT" and len(rest) >= 2:
            start, num = to_integer(rest.pop(0)), to_integer(rest.pop(0))
            rows = rows[start:] if num < 0 else rows[start : start + num]
        else:
            raise ReplyError(SYNTAX)
    return _shown(rows, has_scores)


def _between(t: Transaction, key: bytes, low: bytes, high: bytes) -> list[tuple[bytes, float]]:
    (least, is_above), (most, is_below) = _bound(low), _bound(high)
    return [
        (member, score)
        for member, score in _sorted(t, key)
        if (score > least if is_above else score >= least)
        and (score < most if is_below else score <= most)
    ]


def _bound(word: bytes) -> tuple[float, bool]:
    is_open = word.startswith(b"(")
    number = to_float(word.removeprefix(b"("), NO_BOUND)
    if math.isnan(number):
        raise ReplyError(NO_BOUND)
    return number, is_open


def _shown(rows: list[tuple[bytes, float]], has_scores: bool) -> list[bytes]:
    if not has_scores:
        return [member for member, _ in rows]
    return [part for member, score in rows for part in (member, to_words(score))]


# Streams.


@command
def _xadd(t: Transaction, args: Args) -> bytes:
    if not t.is_kept(args[0]):
        return b"0-1"
    if args[1] == b"*" or args[1].upper() in (b"MAXLEN", b"MINID", b"NOMKSTREAM"):
        raise NotImplementedError("XADD but with an id of one's own")
    entry_id = _stream_id(args[1], 0)
    found = read(t, args[0], Stream) or Stream()
    if entry_id == (0, 0):
        raise ReplyError(ZERO_ID)
    if found and entry_id <= found[-1].id:
        raise ReplyError(TOO_SMALL)
    write(t, args[0], Stream((*found, Entry(entry_id, tuple(args[2:])))))
    return _id_words(entry_id)


def _stream_id(word: bytes, missing_seq: int) -> tuple[int, int]:
    ms, dash, seq = word.partition(b"-")
    if not ms.isdigit() or (dash and not seq.isdigit()):
        raise ReplyError(NO_STREAM_ID)
    return int(ms), int(seq) if dash else missing_seq


def _id_words(entry_id: tuple[int, int]) -> bytes:
    return b"%d-%d" % entry_id


@command
def _xlen(t: Transaction, args: Args) -> int:
    return len(read(t, args[0], Stream) or ())


@command
def _xrange(t: Transaction, args: Args) -> list[list[bytes | list[bytes]]]:
    return _entries(t, args[0], args[1], args[2], args[3:], is_reversed=False)


@command
def _xrevrange(t: Transaction, args: Args) -> list[list[bytes | list[bytes]]]:
    return _entries(t, args[0], args[2], args[1], args[3:], is_reversed=True)


def _entries(
    t: Transaction, key: bytes, low: bytes, high: bytes, options: Args, *, is_reversed: bool
) -> list[list[bytes | list[bytes]]]:
    first = (0, 0) if low == b"-" else _stream_id(low.removeprefix(b"("), 0)
    last = (_LAST, _LAST) if high == b"+" else _stream_id(high.removeprefix(b"("), _LAST)
    rows = [
        entry
        for entry in read(t, key, Stream) or ()
        if (entry.id > first if low.startswith(b"(") else entry.id >= first)
        and (entry.id < last if high.startswith(b"(") else entry.id <= last)
    ]
    if is_reversed:
        rows.reverse()
    if options:
        if len(options) != 2 or options[0].upper() != b"COUNT":
            raise ReplyError(SYNTAX)
        rows = rows[: to_integer(options[1])]
    return [[_id_words(entry.id), list(entry.fields)] for entry in rows]


assert b"XADD" in COMMANDS
