"""Scenarios of clients; each returns its numbers for one round of one target.

Texts are the same for all targets of a round, and new in each round, so that no server can have
cached them. Sampling is greedy; answers run to their token limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bench.bare import BareLoop
from bench.client import Exchange, Post
from bench.cpu_time import CpuTime
from bench.measurement import BenchError, percentile
from bench.processes import cpu_s, resident_mb
from bench.servers import ANSWER_S, Server
from bench.streams import Stream, speed
from bench.texts import Texts

DISTINCT, PREFIX, CHAT, LONG, STANDING = "distinct", "prefix", "chat", "long", "standing"
GRAMMAR, BURST = "grammar", "burst"
NAMES = (DISTINCT, PREFIX, CHAT, LONG, BURST, GRAMMAR)

TOKENS_PER_S, TTFT_P50, TTFT_P99 = "tokens/s", "TTFT p50 ms", "TTFT p99 ms"
GAP_P50, GAP_P99 = "gap p50 ms", "gap p99 ms"
FIRST_TURN, SECOND_TURN, LATER_TURNS = "turn 1 TTFT ms", "turn 2 TTFT ms", "turns 3+ TTFT p50 ms"
MEMORY, IDLE_CPU = "memory MB", "idle CPU %"
FREE, CONSTRAINED = "free tokens/s", "constrained tokens/s"

Values = dict[str, float]
_POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of the scenarios. ``tokens``: tokens generated for a distinct prompt."""

    tokens: int = 64
    prefix_tokens: int = 2000
    prefix_clients: int = 8
    arrivals_s: float = 0.1
    history_tokens: int = 1500
    turns: int = 8
    long_tokens: int = 2000
    running_streams: int = 4
    burst_clients: int = 16
    grammar_clients: int = 4
    grammar_tokens: int = 128
    grammar_turns: int = 2
    idle_s: float = 5.0


QUICK = Scale(
    tokens=16, prefix_tokens=400, prefix_clients=4, history_tokens=300, turns=3, long_tokens=400,
    grammar_tokens=16, grammar_turns=1, idle_s=1.0,
)  # fmt: skip
_PROMPT_WORDS = 64
_SHORT_WORDS = 16
_SHORT_TOKENS = 16
_LONG_LIFE_TOKENS = 1024
# These schemas allow no end within a few hundred tokens, so that ``ignore_eos`` is not needed.
_ENDLESS_LIST = {
    "type": "json_schema",
    "json_schema": {
        "name": "people",
        "schema": {
            "type": "array",
            "minItems": 500,
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "maxLength": 20},
                    "age": {"type": "integer", "minimum": 0, "maximum": 150},
                    "is_member": {"type": "boolean"},
                },
                "required": ["name", "age", "is_member"],
                "additionalProperties": False,
            },
        },
    },
}
_HELD_TO_SCHEMA = {"response_format": _ENDLESS_LIST, "ignore_eos": False}


def distinct_name(clients: int) -> str:
    """The scenario's name with its number of clients."""
    return f"{DISTINCT}, {clients} client{'s' if clients > 1 else ''}"


def warm_up(target: Server | BareLoop, texts: Texts, key: str) -> None:
    """One short request, after which connections and caches exist."""
    target.generate([texts.words(f"{key} warm-up", _SHORT_WORDS)], _SHORT_TOKENS)


def distinct(
    target: Server | BareLoop, texts: Texts, key: str, scale: Scale, clients: int
) -> Values:
    """``clients`` unrelated prompts of 64 words at once."""
    prompts = [texts.words(f"{key} {clients} {i}", _PROMPT_WORDS) for i in range(clients)]
    instance = target.instance if isinstance(target, Server) else None
    before = instance and CpuTime.of(instance)
    streams = target.generate(prompts, scale.tokens)
    after = instance and CpuTime.of(instance)
    num_tokens = sum(stream.num_tokens for stream in streams)
    if num_tokens != clients * scale.tokens:
        raise BenchError(f"{num_tokens} of {clients} x {scale.tokens} tokens came")
    values = {**speed(streams), "tokens": float(num_tokens)}
    if isinstance(target, Server) and before and after:
        values |= after.per_token(before, num_tokens, target.threads)
    return values


def standing(target: Server | BareLoop, scale: Scale) -> Values:
    """Memory and processor time of an idle server after work."""
    processes = target.processes
    before_s, started_at = cpu_s(processes), time.perf_counter()
    time.sleep(scale.idle_s)
    share = (cpu_s(processes) - before_s) / (time.perf_counter() - started_at)
    return {MEMORY: resident_mb(processes), IDLE_CPU: share * 100}


async def prefix(server: Server, texts: Texts, key: str, scale: Scale) -> Values:
    """A new long prefix, shared by all prompts, which arrive within 100 ms."""
    shared = texts.tokens(f"{key} shared", scale.prefix_tokens)
    exchanges: list[Exchange] = []
    started_at = time.perf_counter()
    for i in range(scale.prefix_clients):
        due_at = started_at + i * scale.arrivals_s / scale.prefix_clients
        await asyncio.sleep(max(0.0, due_at - time.perf_counter()))
        prompt = f"{shared} {texts.words(f'{key} own {i}', _SHORT_WORDS)}"
        exchanges.append(await Exchange.start(server.completion(prompt, _SHORT_TOKENS)))
    streams = [await exchange.stream(ANSWER_S) for exchange in exchanges]
    return {**speed(streams), "cached tokens": float(sum(s.num_cached_tokens for s in streams))}


async def chat(server: Server, texts: Texts, key: str, scale: Scale) -> Values:
    """A conversation that begins with a long text; each turn sends all earlier messages.

    Instead of each answer, new words of as many tokens are sent: an answer is a text of random
    tokens, which a tokenizer splits into up to six times as many.
    """
    messages: list[dict[str, str]] = []
    ttfts: list[float] = []
    for turn in range(scale.turns):
        asked = texts.words(f"{key} turn {turn}", _SHORT_WORDS)
        if turn == 0:
            asked = f"{texts.tokens(f'{key} history', scale.history_tokens)} {asked}"
        messages.append({"role": "user", "content": asked})
        exchange = await Exchange.start(server.chat(messages, _SHORT_TOKENS))
        stream = await exchange.stream(ANSWER_S)
        said = texts.tokens(f"{key} answer {turn}", _SHORT_TOKENS)
        messages.append({"role": "assistant", "content": said})
        ttfts.append(stream.ttft_s * 1000)
    later = {LATER_TURNS: percentile(ttfts[2:], 50)} if len(ttfts) > 2 else {}
    return {FIRST_TURN: ttfts[0], SECOND_TURN: ttfts[1], **later}


async def long_prompt(server: Server, texts: Texts, key: str, scale: Scale) -> Values:
    """The effect of a long prompt on running streams: gaps from its arrival to its first token."""
    running = await _running_streams(server, texts, key, scale)
    prompt = texts.tokens(f"{key} long", scale.long_tokens)
    newcomer = await Exchange.start(server.completion(prompt, _SHORT_TOKENS))
    long = await newcomer.stream(ANSWER_S)
    streams = await _cut(running)
    gaps = gaps_within(streams, long.started_at, long.times[0])
    return {
        GAP_P50: percentile(gaps, 50),
        GAP_P99: percentile(gaps, 99),
        "gap max ms": max(gaps),
        "long TTFT ms": long.ttft_s * 1000,
    }


async def burst(server: Server, texts: Texts, key: str, scale: Scale) -> Values:
    """The effect of 16 concurrent new clients on running streams, and the new clients' TTFT."""
    running = await _running_streams(server, texts, key, scale)
    posts = [
        server.completion(texts.words(f"{key} new {i}", _PROMPT_WORDS), _SHORT_TOKENS)
        for i in range(scale.burst_clients)
    ]
    exchanges = await asyncio.gather(*map(Exchange.start, posts))
    newcomers = [await exchange.stream(ANSWER_S) for exchange in exchanges]
    streams = await _cut(running)
    start = min(new.started_at for new in newcomers)
    gaps = gaps_within(streams, start, max(new.times[0] for new in newcomers))
    ttfts = [new.ttft_s * 1000 for new in newcomers]
    return {GAP_P99: percentile(gaps, 99), "gap max ms": max(gaps), TTFT_P50: percentile(ttfts, 50)}


async def grammar(server: Server, texts: Texts, key: str, scale: Scale) -> Values:
    """The same requests with and without a JSON schema, in turn; includes compiling the schema."""
    spent_s = {FREE: 0.0, CONSTRAINED: 0.0}
    num_tokens = scale.grammar_turns * scale.grammar_clients * scale.grammar_tokens
    for turn in range(scale.grammar_turns):
        for name, extra in ((FREE, {}), (CONSTRAINED, _HELD_TO_SCHEMA)):
            asked = [
                {"role": "user", "content": texts.words(f"{key} {turn} {name} {i}", _SHORT_WORDS)}
                for i in range(scale.grammar_clients)
            ]
            posts = [server.chat([each], scale.grammar_tokens, extra) for each in asked]
            spent_s[name] += await _elapsed_s(posts, scale.grammar_tokens)
    return {name: num_tokens / seconds for name, seconds in spent_s.items()}


async def _running_streams(server: Server, texts: Texts, key: str, scale: Scale) -> list[Exchange]:
    """Running streams that do not end by themselves."""
    running = [
        await Exchange.start(
            server.completion(texts.words(f"{key} {i}", _PROMPT_WORDS), _LONG_LIFE_TOKENS)
        )
        for i in range(scale.running_streams)
    ]
    await _until(lambda: all(exchange.num_arrivals > 8 for exchange in running), running)
    return running


async def _cut(running: list[Exchange]) -> list[Stream]:
    """End the running streams; ``BenchError`` if one had already ended."""
    were_running = not any(exchange.is_done for exchange in running)
    for exchange in running:
        exchange.abort()
    streams = [await exchange.stream(ANSWER_S) for exchange in running]
    if not were_running:
        raise BenchError("streams ended before the new clients did: nothing was measured")
    return streams


async def _elapsed_s(posts: list[Post], max_tokens: int) -> float:
    """Seconds from the first connect to the last end; checks the number of tokens."""
    exchanges = [await Exchange.start(post) for post in posts]
    streams = [await exchange.stream(ANSWER_S) for exchange in exchanges]
    if any(stream.num_tokens != max_tokens for stream in streams):
        raise BenchError(
            f"{[stream.num_tokens for stream in streams]} instead of {max_tokens} each"
        )
    return max(s.ended_at for s in streams) - min(s.started_at for s in streams)


def gaps_within(streams: list[Stream], start: float, end: float) -> list[float]:
    """Milliseconds between successive pieces, for the gaps that overlap the given time."""
    return [
        (later - earlier) * 1000
        for stream in streams
        for earlier, later in pairwise(stream.times)
        if later > start and earlier < end
    ]


async def _until(is_so: Callable[[], bool], running: list[Exchange]) -> None:
    deadline = time.monotonic() + ANSWER_S
    while not is_so():
        if any(exchange.is_done for exchange in running):
            raise BenchError("a stream ended before all of them ran")
        if time.monotonic() > deadline:
            raise BenchError(f"not all streams ran after {ANSWER_S:.0f} s")
        await asyncio.sleep(_POLL_S)


SERVER_SCENARIOS: dict[str, Callable[[Server, Texts, str, Scale], Coroutine[Any, Any, Values]]] = {
    PREFIX: prefix,
    CHAT: chat,
    LONG: long_prompt,
    BURST: burst,
    GRAMMAR: grammar,
}
