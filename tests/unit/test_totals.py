"""What an ended job adds to the totals, and how they are read back."""

from __future__ import annotations

import pytest

from jobs.contract.events import EventKind, Timings, Usage
from jobs.storage.totals import Sum, amounts_of, parse_totals
from tests.helpers.samples import event


def test_an_end_adds_tokens_and_times() -> None:
    ended = event(
        kind=EventKind.FINISHED,
        usage=Usage(10, 5, 3),
        timings=Timings(queue_ms=1500.0, prefill_ms=250.0, ttft_ms=1800.0, decode_ms=2000.0),
    )
    parts = amounts_of(ended)
    assert dict(zip(parts[::2], parts[1::2], strict=True)) == {
        "prompt_tokens": 10, "cached_tokens": 3, "generated_tokens": 5, "timed_jobs": 1,
        "queue_s": 1.5, "prefill_s": 0.25, "ttft_s": 1.8, "decode_s": 2.0,
    }  # fmt: skip


def test_an_end_without_numbers_adds_none() -> None:
    assert amounts_of(event(kind=EventKind.FAILED)) == []
    assert amounts_of(event(kind=EventKind.FINISHED, usage=Usage(prompt_tokens=4))) == [
        "prompt_tokens",
        4,
    ]


def test_totals_are_read_by_model() -> None:
    totals = parse_totals(
        {
            b"jobs mgs.generate finished my model": b"7",
            b"jobs mgs.load failed 0": b"1",
            b"prompt_tokens my model": b"12",
            b"ttft_s 0": b"0.25",
            b"of_another_version 0": b"1",
        }
    )
    assert totals.jobs == {
        ("mgs.generate", "finished", "my model"): 7,
        ("mgs.load", "failed", "0"): 1,
    }
    assert totals.sums == {Sum.PROMPT_TOKENS: {"my model": 12.0}, Sum.TTFT_S: {"0": 0.25}}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"jobs mgs.generate finished 1", b"many"),
        (b"jobs mgs.generate finished 1", b"1.5"),
        (b"jobs x", b"1"),
        (b"jobs mgs.generate finished \xff", b"1"),
        (b"prompt_tokens 1", b"many"),
        (b"prompt_tokens 1", b"nan"),
        (b"prompt_tokens \xff", b"1"),
        (b"\xff\xfe", b"1"),
        (b"", b""),
    ],
)
def test_a_field_that_cannot_be_read_hides_no_other(name: bytes, value: bytes) -> None:
    good = {b"jobs mgs.load failed 0": b"1", b"ttft_s 0": b"0.25"}
    totals = parse_totals({**good, name: value})
    assert totals == parse_totals(good)
