"""One streamed answer with the times of its pieces, and the metrics of it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import msgspec

from bench.measurement import BenchError, percentile

Arrival = tuple[float, bytes]
"""Seconds of the monotonic clock, and the data received then."""


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: dict[str, int] | None = None


class _Frame(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Frame).decode


@dataclass(slots=True)
class Stream:
    """``started_at``: before the connect; ``times``: of the pieces with text.

    ``is_at_limit``: the server reported an end at the token limit.
    """

    started_at: float
    ended_at: float
    times: list[float] = field(default_factory=list)
    text: str = ""
    num_tokens: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    is_at_limit: bool = False

    @property
    def has_usage(self) -> bool:
        return self.num_prompt_tokens > 0

    @property
    def ttft_s(self) -> float:
        if not self.times:
            raise BenchError("a stream had no text")
        return self.times[0] - self.started_at

    @property
    def gaps_s(self) -> list[float]:
        """Seconds between successive pieces; a piece may have several tokens."""
        return [later - earlier for earlier, later in pairwise(self.times)]


def speed(streams: list[Stream]) -> dict[str, float]:
    """The metrics of concurrent streams."""
    elapsed_s = max(s.ended_at for s in streams) - min(s.started_at for s in streams)
    ttfts = [stream.ttft_s * 1000 for stream in streams]
    gaps = [gap * 1000 for stream in streams for gap in stream.gaps_s] or [0.0]
    return {
        "tokens/s": sum(stream.num_tokens for stream in streams) / elapsed_s,
        "TTFT p50 ms": percentile(ttfts, 50),
        "TTFT p99 ms": percentile(ttfts, 99),
        "gap p50 ms": percentile(gaps, 50),
        "gap p99 ms": percentile(gaps, 99),
    }


def read_stream(started_at: float, ended_at: float, arrivals: list[Arrival]) -> Stream:
    """Parse an HTTP answer of server-sent events, complete or cut; else ``BenchError``.

    Done after all streams have ended, so that parsing takes no time while they run.
    """
    stream = Stream(started_at, ended_at)
    for time, data in _events(arrivals):
        frame = _decode(data)
        text = _text(frame)
        if text:
            stream.times.append(time)
            stream.text += text
        stream.is_at_limit |= any(c.finish_reason == "length" for c in frame.choices)
        if frame.usage is not None:
            _note_usage(stream, frame.usage)
    # Some servers report no usage in a stream; then one piece is one token.
    stream.num_tokens = stream.num_tokens or len(stream.times)
    return stream


def _text(frame: _Frame) -> str:
    if not frame.choices:
        return ""
    choice = frame.choices[0]
    return (choice.delta.content if choice.delta else choice.text) or ""


def _note_usage(stream: Stream, usage: _Usage) -> None:
    stream.num_tokens = usage.completion_tokens
    stream.num_prompt_tokens = usage.prompt_tokens
    stream.num_cached_tokens = (usage.prompt_tokens_details or {}).get("cached_tokens", 0)


def _events(arrivals: list[Arrival]) -> Iterator[Arrival]:
    """The JSON of each event, with the time at which its last byte was received."""
    body, ends, times = _body(arrivals)
    start = 0
    while (end := body.find(b"\n\n", start)) >= 0:
        line = body[start:end].strip()
        start = end + 2
        if line.startswith(b"data: {"):
            yield times[bisect_left(ends, end)], line[6:]


def _body(arrivals: list[Arrival]) -> tuple[bytes, list[int], list[float]]:
    """The answer's body, and the times of its parts by their end offsets."""
    raw = b"".join(data for _, data in arrivals)
    head, separator, _ = raw.partition(b"\r\n\r\n")
    if not separator or b" 200 " not in head.partition(b"\r\n")[0]:
        raise BenchError(f"the answer is not a stream: {raw[:300]!r}")
    ends = list(accumulate(len(data) for _, data in arrivals))
    times = [time for time, _ in arrivals]
    if b"transfer-encoding: chunked" not in head.lower():
        first = len(head) + 4
        return raw[first:], [end - first for end in ends], times
    return _dechunk(raw, len(head) + 4, ends, times)


def _dechunk(
    raw: bytes, position: int, ends: list[int], times: list[float]
) -> tuple[bytes, list[int], list[float]]:
    parts: list[bytes] = []
    part_times: list[float] = []
    while (line_end := raw.find(b"\r\n", position)) >= 0:
        size = int(raw[position:line_end].partition(b";")[0], 16)
        first, position = line_end + 2, line_end + 4 + size
        if size == 0 or position > len(raw):  # the end, or the position where the stream was cut
            break
        parts.append(raw[first : first + size])
        part_times.append(times[bisect_left(ends, first + size)])
    return b"".join(parts), list(accumulate(map(len, parts))), part_times
