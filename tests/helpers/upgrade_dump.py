"""Loads an older version's data into Redis (``scripts/make_upgrade_dump.py``), with new times."""

from __future__ import annotations

import gzip
import re
import time
from pathlib import Path

from jobs.storage.connection import SyncRedis
from tests.helpers.resp import Splitter

DUMP = Path(__file__).resolve().parents[1] / "data" / "redis_50ffc2d.aof.gz"
_NOT_DATA = (b"SELECT", b"XSETID")
_NEAR_S = 86400
# Epoch seconds, alone or in JSON, with or without a fraction.
_SECONDS = re.compile(rb"(?<![\w.])(\d{10})(?!\w)")


def load_dump(redis: SyncRedis, file: Path = DUMP) -> None:
    """Write the file's data with all times shifted, as if it was made now."""
    made_at, commands = read_commands(file)
    shift = int(time.time()) - made_at
    with redis.pipeline() as pipe:
        for command in commands:
            pipe.execute_command(*shifted(command, made_at, shift))
        pipe.execute()


def read_commands(file: Path) -> tuple[int, list[list[bytes]]]:
    """The time of the dump, in epoch seconds, and its commands."""
    stamp, _, data = gzip.decompress(file.read_bytes()).partition(b"\r\n")
    assert stamp.startswith(b"#TS:"), stamp
    messages = [_words(message) for message in Splitter().feed(data)]
    return int(stamp[4:]), [words for words in messages if words[0] not in _NOT_DATA]


def shifted(command: list[bytes], made_at: int, shift: int) -> list[bytes]:
    """The command with each time near ``made_at`` shifted by ``shift`` seconds."""

    def moved(seconds: float) -> float:
        return seconds + shift if abs(seconds - made_at) < _NEAR_S else seconds

    if command[0] == b"PEXPIREAT":
        return [*command[:2], b"%d" % (int(command[2]) + shift * 1000)]
    if command[0] == b"ZADD":  # scores are written with exponents
        scores = [repr(moved(float(score))).encode() for score in command[2::2]]
        pairs = zip(scores, command[3::2], strict=True)
        return [*command[:2], *(word for pair in pairs for word in pair)]
    return [_SECONDS.sub(lambda found: b"%d" % moved(int(found[1])), word) for word in command]


def _words(message: bytes) -> list[bytes]:
    """The strings of an array of bulk strings; they may contain line ends."""
    count, _, rest = message.partition(b"\r\n")
    words = []
    for _ in range(int(count[1:])):
        size, _, rest = rest.partition(b"\r\n")
        length = int(size[1:])
        words.append(rest[:length])
        rest = rest[length + 2 :]
    return words
