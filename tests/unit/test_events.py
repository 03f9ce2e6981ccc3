"""Events: the same after the wire, refused when they are not ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.contract.errors import ContractError, ErrorInfo
from jobs.contract.events import (
    BEFORE_ALL,
    CalledTool,
    Event,
    EventId,
    EventKind,
    Timings,
    TokenLogprob,
    Usage,
    add_calls,
    decode_event,
    encode_event,
)
from tests.helpers.samples import event

COUNTS = st.integers(0, 10**6)
FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=32)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
LOGPROBS = st.builds(TokenLogprob, token_id=COUNTS, text=TEXTS, logprob=st.none() | FLOATS)
EVENTS = st.builds(
    Event,
    job=TEXTS,
    attempt=COUNTS,
    seq=COUNTS,
    kind=st.sampled_from(EventKind),
    t=FLOATS,
    choice=COUNTS,
    token_ids=st.lists(COUNTS, max_size=5),
    text=TEXTS,
    logprobs=st.none() | st.lists(LOGPROBS, min_size=1, max_size=3),
    prompt=st.none() | st.lists(LOGPROBS, max_size=3),
    mirostat_mu=st.none() | FLOATS,
    embedding=st.none() | st.binary(max_size=40),
    finish_reason=st.none() | st.sampled_from(["stop", "length"]),
    stop=st.none() | TEXTS,
    usage=st.none() | st.builds(Usage, COUNTS, COUNTS, COUNTS),
    timings=st.none() | st.builds(Timings, FLOATS, FLOATS),
    phase=st.none() | TEXTS,
    fraction=st.none() | FLOATS,
    num_tokens=st.none() | COUNTS,
    error=st.none() | st.builds(ErrorInfo, code=TEXTS, message=TEXTS, param=st.none() | TEXTS),
)


@given(EVENTS)
def test_an_event_is_the_same_after_the_wire_and_one_line_on_it(sent: Event) -> None:
    line = encode_event(sent)
    assert decode_event(line) == sent
    assert b"\n" not in line


def test_what_says_nothing_takes_no_room() -> None:
    assert encode_event(event(seq=3)) == b'{"job":"j","attempt":1,"seq":3,"kind":"chunk","t":1.0}'


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"null", b"[]", b"\xff", b"not json", b"[" * 100_000, b'{"job":"\xff"}',
        b'{"job":"j","attempt":1,"seq":1,"kind":"exploded","t":1.0}',
        b'{"job":"j","attempt":"1","seq":1,"kind":"chunk","t":1.0}',
        b'{"job":"j","attempt":1,"seq":1,"kind":"chunk","t":1.0,"v":2}',
    ],
)  # fmt: skip
def test_anything_else_is_a_contract_error(data: bytes) -> None:
    with pytest.raises(ContractError):
        decode_event(data)


def test_an_event_of_another_version_names_it() -> None:
    data = b'{"job":"j","attempt":1,"seq":1,"kind":"chunk","t":1.0,"v":99}'
    with pytest.raises(ContractError, match="99"):
        decode_event(data)


def test_three_kinds_end_a_job() -> None:
    ends = {kind for kind in EventKind if event(kind).is_terminal}
    assert ends == {EventKind.FINISHED, EventKind.FAILED, EventKind.CANCELLED}


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_an_event_id_is_read_as_it_is_written(attempt: int, seq: int) -> None:
    assert EventId.parse(str(EventId(attempt, seq))) == (attempt, seq)


@pytest.mark.parametrize(
    "text",
    [
        "", "1", "1-", "-1", "1-2-3", "a-b", "1- 2", " 1-2", "1-2\n", "+1-2", "-1-2", "1_0-2",
        "\u0661-\u0662", "\u00b2-1", f"{2**63}-0", "9" * 5000 + "-1", "$", "0x1-2",
    ],
)  # fmt: skip
def test_what_is_no_event_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        EventId.parse(text)


@given(st.tuples(st.integers(0, 9), st.integers(0, 9)), st.tuples(st.integers(0, 9), st.integers(0, 9)))  # fmt: skip  # noqa: E501
def test_event_ids_compare_as_redis_orders_them(
    one: tuple[int, int], other: tuple[int, int]
) -> None:
    assert (EventId(*one) < EventId(*other)) == (one < other)


def test_every_event_comes_after_the_beginning() -> None:
    assert event(seq=1, attempt=0).id > BEFORE_ALL


def test_usage_sums_up() -> None:
    assert Usage(3, 4, 1).total_tokens == 7


def test_calls_of_older_logs_are_whole_and_newer_ones_come_in_pieces() -> None:
    older = b'{"job":"j","attempt":1,"seq":1,"kind":"chunk","t":1.0,"tool_calls":[{"index":0,'
    calls: list[CalledTool] = []
    add_calls(calls, decode_event(older + b'"id":"c","name":"now"}]}').tool_calls)
    assert calls == [CalledTool(0, "c", "now", "{}")]
    pieces = [
        CalledTool(1, "d", "add", ""),
        CalledTool(1, arguments="{}"),
        CalledTool(1, arguments=""),
    ]
    for piece in pieces:
        add_calls(calls, decode_event(encode_event(event(tool_calls=[piece]))).tool_calls)
    assert calls[1:] == [CalledTool(1, "d", "add", "{}")]
