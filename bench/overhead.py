"""The overhead of HTTP, queue and Redis per first token and per further token.

With the fake engine, so that nearly all of the time is the server's. One client, a new connection
per request; then the same prompt with the same engine in this process. The difference of the two
is the server's overhead.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from bench.client import Exchange, Post
from bench.instance import Instance
from bench.measurement import BenchError, percentile
from bench.servers import ANSWER_S
from jobs.contract.requests import Message, Prompt
from jobs.contract.sampling import Sampling
from workers.engines.base import EngineOptions, Sequence, Token
from workers.engines.fake import open_fake
from workers.generation.prompts import PromptEncoder

OVERHEAD = "overhead"
HOP_P50, HOP_P99, PER_TOKEN = "queue hop p50 ms", "queue hop p99 ms", "added per token ms"
_PROMPT = "Hello, how are you?"
_NUM_TOKENS = 400
_STREAMS_PER_ROUND = 5
_FIRST_CONTENT = b'"delta":{"content":"'


def measure_overhead(instance: Instance, samples: int) -> dict[str, float]:
    """One round of first tokens and a few long streams; ``fake`` is loaded."""
    comparison = _Comparison(instance.port)
    comparison.measure(samples // 10)  # warm-up: the first requests create connections and caches
    return comparison.measure(samples)


class _Comparison:
    """The same requests to the server and directly to the engine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._engine = open_fake(Path("fake"), EngineOptions(), lambda fraction: None)
        self._encoder = PromptEncoder(self._engine.tokenizer, None)

    def measure(self, samples: int) -> dict[str, float]:
        hops = []
        for _ in range(samples):
            served_ms = _served_ms(self._port)
            hops.append(served_ms - next(self._direct_times()) * 1000)
        added = [self._added_per_token_ms() for _ in range(_STREAMS_PER_ROUND)]
        return {
            HOP_P50: percentile(hops, 50),
            HOP_P99: percentile(hops, 99),
            PER_TOKEN: percentile(added, 50),
        }

    def _added_per_token_ms(self) -> float:
        served = asyncio.run(_served_times(self._port))
        direct = list(self._direct_times())
        return (_mean_gap_s(served) - _mean_gap_s(direct)) * 1000

    def _direct_times(self) -> Iterator[float]:
        """Seconds from the start, template and tokens included, to each token of the engine."""
        started_at = time.perf_counter()
        tokens = self._encoder.encode(_prompt())
        self._engine.submit(Sequence(1, tokens, _NUM_TOKENS, _sampling()))
        try:
            while self._engine.has_work:
                for event in self._engine.step():
                    if isinstance(event, Token):
                        yield time.perf_counter() - started_at
        finally:
            self._engine.abort(1)


def _prompt() -> Prompt:
    return Prompt(messages=[Message(role="user", content=_PROMPT)])


def _sampling() -> Sampling:
    return Sampling(temperature=0.0, ignore_eos=True)


def _post(port: int, max_tokens: int) -> Post:
    body = {
        "messages": [{"role": "user", "content": _PROMPT}],
        "max_tokens": max_tokens,
        "stream": True,
        "temperature": 0,
        "ignore_eos": True,
    }
    return Post(port, "/v1/chat/completions", body)


def _served_ms(port: int) -> float:
    """Connect, post, and read up to the first chunk with text. The socket is blocking, as the time
    of a client's event loop would be in the figure.
    """
    request = _post(port, 2).to_bytes()
    started_at = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(request)
        received = b""
        while _FIRST_CONTENT not in received:
            data = connection.recv(65536)
            if not data:
                raise BenchError(f"no content chunk in {received!r}")
            received += data
        elapsed_s = time.perf_counter() - started_at
        while connection.recv(65536):
            pass
    return elapsed_s * 1000


async def _served_times(port: int) -> list[float]:
    exchange = await Exchange.start(_post(port, _NUM_TOKENS))
    return (await exchange.stream(ANSWER_S)).times


def _mean_gap_s(times: list[float]) -> float:
    """The time after the first token, divided by the number of further tokens."""
    return (times[-1] - times[0]) / (_NUM_TOKENS - 1)
