"""A stream is read from what the socket gave, at the time when each piece was whole."""

from __future__ import annotations

import pytest

from bench.measurement import BenchError
from bench.scenarios import gaps_within
from bench.streams import Stream, read_stream, speed

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_A = b'data: {"choices":[{"text":"a"}]}\n\n'
_B = b'data: {"choices":[{"delta":{"content":"b"}}],"usage":null}\n\n'
_EMPTY = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
_USAGE = (
    b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5,'
    b'"prompt_tokens_details":{"cached_tokens":3}}}\n\ndata: [DONE]\n\n'
)


def test_pieces_of_text_and_completions_carry_the_time_of_their_last_byte() -> None:
    arrivals = [(1.0, _HEAD + _A + _B[:9]), (2.0, _B[9:])]
    stream = read_stream(0.5, 2.5, arrivals)
    assert (stream.text, stream.times) == ("ab", [1.0, 2.0])
    assert (stream.ttft_s, stream.gaps_s) == (0.5, [1.0])


def test_chunks_of_http_are_taken_off_wherever_they_are_cut() -> None:
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (_A[:7], _A[7:] + _B))
    whole = _CHUNKED + body + b"0\r\n\r\n"
    for cut in range(len(_CHUNKED), len(whole)):
        stream = read_stream(0.0, 3.0, [(1.0, whole[:cut]), (2.0, whole[cut:])])
        assert stream.text == "ab"
        assert stream.times == sorted(stream.times)


def test_a_stream_that_was_cut_keeps_what_was_whole() -> None:
    chunk = b"%x\r\n%s\r\n" % (len(_A), _A)
    stream = read_stream(0.0, 1.0, [(0.5, _CHUNKED + chunk + b"ff\r\ndata: {")])
    assert stream.text == "a"


def test_tokens_are_those_of_the_usage() -> None:
    stream = read_stream(0.0, 1.0, [(0.5, _HEAD + _EMPTY + _A + _USAGE)])
    assert len(stream.times) == 1
    assert (stream.num_tokens, stream.num_prompt_tokens, stream.num_cached_tokens) == (5, 9, 3)


def test_the_end_at_the_limit_is_noted() -> None:
    end = b'data: {"choices":[{"text":"","finish_reason":"length"}]}\n\n'
    stream = read_stream(0.0, 1.0, [(0.5, _HEAD + _A + end)])
    assert (stream.is_at_limit, stream.has_usage) == (True, False)
    assert not read_stream(0.0, 1.0, [(0.5, _HEAD + _A)]).is_at_limit


def test_without_usage_each_piece_is_a_token() -> None:
    assert read_stream(0.0, 1.0, [(0.5, _HEAD + _A + _B)]).num_tokens == 2


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n{}"])
def test_an_answer_that_is_no_stream_is_an_error(answer: bytes) -> None:
    with pytest.raises(BenchError, match="not a stream"):
        read_stream(0.0, 1.0, [(0.5, answer)])


def test_the_speed_of_streams_spans_all_of_them() -> None:
    streams = [
        Stream(0.0, 1.0, times=[0.1, 0.2], num_tokens=2),
        Stream(1.0, 4.0, times=[1.3, 3.3], num_tokens=6),
    ]
    numbers = speed(streams)
    assert numbers["tokens/s"] == 2.0
    assert numbers["TTFT p50 ms"] == pytest.approx(200)
    assert numbers["gap p50 ms"] == pytest.approx(1050)


def test_gaps_that_touch_a_span_count_and_others_do_not() -> None:
    streams = [Stream(0.0, 9.0, times=[1.0, 2.0, 4.0, 7.0, 8.0])]
    assert gaps_within(streams, 3.0, 5.0) == [2000.0, 3000.0]
