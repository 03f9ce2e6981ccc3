"""Logging: one line per record, whatever somebody puts into it."""

from __future__ import annotations

import logging
import sys

import pytest

from jobs.logs import LineFormatter

EVIL = "a\nb\r\x1b[31m\x00\x85\u2028\x9b31mc"


def format_record(message: str = "it is", **extra: object) -> str:
    record = logging.LogRecord("workers.x", logging.INFO, __file__, 1, message, (), None)
    vars(record).update(extra)
    return LineFormatter().format(record)


def is_one_line(text: str) -> bool:
    return len(text.splitlines()) == 1 and not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text)


def test_a_record_is_time_level_logger_message_and_its_ids() -> None:
    assert format_record("job ended", job="j-1", count=3)[8:] == (
        ' info workers.x: job ended job="j-1" count=3'
    )


@pytest.mark.parametrize("value", [EVIL, {"a": EVIL}, [EVIL], ValueError(EVIL), b"\xff\n"])
def test_a_value_stays_on_its_line(value: object) -> None:
    assert is_one_line(format_record(job=value))


def test_a_message_stays_on_its_line() -> None:
    assert is_one_line(format_record(EVIL))


def test_a_lone_surrogate_can_be_written() -> None:
    format_record("\ud800", job="\ud800").encode()


def test_what_a_traceback_says_cannot_look_like_a_record() -> None:
    try:
        raise ValueError("x\n12:00:00 error workers: forged\r\x1b[2J")
    except ValueError:
        record = logging.LogRecord("w", logging.ERROR, "", 1, "failed", (), sys.exc_info())
    first, *others = LineFormatter().format(record).split("\n")
    assert first.endswith("w: failed")
    assert others
    assert all(line.startswith("    ") and is_one_line(line) for line in others)
    assert "forged" in "".join(others)
