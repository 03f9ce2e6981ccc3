"""Who is served when many want the model: batches beside people, keys beside keys."""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from jobs.keys.editing import add_key
from tests.helpers.server import Server, make_server
from tests.proofs.registry import Result, Tally, proof

_NUM_ASKED = 100
_NUM_BATCH = 12  # outstanding batch jobs
_LOAD = 0.2  # of the time, a person's answer is being written
_ANSWER = 200
_MODEL = "demo.gguf"


@dataclass(frozen=True, slots=True)
class Answer:
    """Seconds to the first token, and tokens per second after it."""

    first_s: float
    rate: float


@proof(
    "batch-latency",
    goal="first token p50 <= 1.3 x idle, p99 <= 2 x idle + one step, stream rate >= 0.8 of idle, "
    "the batch keeps >= 70 % of its own rate",
    full=3,
    timeout_s=900,
)
def test_people_hardly_notice_a_batch(rounds: int) -> Result:
    """A round is 100 answers on an idle server, a batch alone, and both at once."""
    tally = Tally()
    found: dict[str, list[float]] = defaultdict(list)
    with _server(MGS_SLOTS="4") as server:
        _load(server)
        for seed in range(rounds):
            for name, value in asyncio.run(_measure(server.url, seed)).items():
                found[name].append(value)
            tally.rounds += 1
    median = {name: statistics.median(values) for name, values in found.items()}
    tally.note("first token p50, share of idle", median["p50"], 1.3, "x")
    tally.note("first token p99 less a step, share of idle", median["p99"], 2.0, "x")
    tally.note_least("stream rate, share of idle", median["rate"], 0.8, "x")
    tally.note_least("batch rate, share of its own", median["batch"], 0.7, "x")
    return tally.result(f"{_NUM_ASKED} answers a round, {_LOAD:.0%} load")


async def _measure(url: str, seed: int) -> dict[str, float]:
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        await _ask(client, "warm up")
        alone = [await _ask(client, f"hello {n}") for n in range(10)]
        service_s = statistics.median(one.first_s + _ANSWER / one.rate for one in alone)
        gap_s = service_s / _LOAD
        idle = await _people(client, seed, gap_s)
        async with _Batch(client) as batch:
            solo = await batch.rate(15)
            asked, both = await asyncio.gather(
                _people(client, seed, gap_s), batch.rate(gap_s * _NUM_ASKED)
            )
        step_s = 1 / statistics.median(one.rate for one in asked)
        return {
            "p50": _quantile(asked, 0.5) / _quantile(idle, 0.5),
            "p99": (_quantile(asked, 0.99) - step_s) / _quantile(idle, 0.99),
            "rate": _median_rate(asked) / _median_rate(idle),
            "batch": both / solo,
        }


async def _people(client: httpx.AsyncClient, seed: int, gap_s: float) -> list[Answer]:
    """Answers to questions that come at random."""
    random_gaps = random.Random(seed)
    asked = []
    for number in range(_NUM_ASKED):
        asked.append(asyncio.create_task(_ask(client, f"question {seed} {number}")))
        await asyncio.sleep(random_gaps.expovariate(1 / gap_s))
    return list(await asyncio.gather(*asked))


async def _ask(client: httpx.AsyncClient, text: str) -> Answer:
    body = {**_body(text, _ANSWER), "stream": True}
    started_at = time.monotonic()
    first_at = 0.0
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for line in answer.aiter_lines():
            if not first_at and '"content":"' in line and '"content":""' not in line:
                first_at = time.monotonic()
    return Answer(first_at - started_at, (_ANSWER - 1) / (time.monotonic() - first_at))


def _body(text: str, max_tokens: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {
        "model": _MODEL,
        "messages": messages,
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "temperature": 0,
    }


class _Batch:
    """Batch jobs that keep the model busy; ``rate`` measures them."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._tasks: list[asyncio.Task[None]] = []
        self.num_tokens = 0

    async def __aenter__(self) -> _Batch:
        self._tasks = [asyncio.create_task(self._run(n)) for n in range(_NUM_BATCH)]
        await asyncio.sleep(3)
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, number: int) -> None:
        count = 0
        while True:
            count += 1
            body = {**_body(f"line {number} {count}", 100), "service_tier": "flex"}
            answer = await self._client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            self.num_tokens += answer.json()["usage"]["completion_tokens"]

    async def rate(self, seconds: float) -> float:
        """Tokens of batch jobs per second, from now on."""
        before = self.num_tokens
        await asyncio.sleep(seconds)
        return (self.num_tokens - before) / seconds


def _quantile(answers: list[Answer], share: float) -> float:
    ordered = sorted(one.first_s for one in answers)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def _median_rate(answers: list[Answer]) -> float:
    return statistics.median(one.rate for one in answers)


@proof(
    "fair-shares",
    goal="Jain's index by weight >= 0.95, the small key's p95 wait <= one answer, a late key gets "
    "<= 1.2 x its share",
    full=1,
    timeout_s=300,
)
def test_keys_share_a_model_by_their_weights(rounds: int) -> Result:
    """A round is 60 s with key a (16 clients), b (1) and c (8, weight 2); then 30 s with d, too."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="keys-") as folder:
        path = Path(folder) / "keys.toml"
        keys = {name: add_key(path, name, {}) for name in "abd"}
        keys["c"] = add_key(path, "c", {"weight": 2.0})
        with _server(MGS_SLOTS="4", MGS_KEYS_FILE=str(path)) as server:
            _load(server, keys["a"])
            for _ in range(rounds):
                asyncio.run(_share(server.url, keys, tally))
                tally.rounds += 1
    return tally.result(f"{rounds} min")


async def _share(url: str, keys: dict[str, str], tally: Tally) -> None:
    tokens: dict[str, int] = defaultdict(int)
    waits: list[float] = []
    lengths: list[float] = []

    async def client(name: str, number: int) -> None:
        headers = {"Authorization": f"Bearer {keys[name]}"}
        async with httpx.AsyncClient(base_url=url, timeout=120, headers=headers) as http:
            while True:
                number += 1
                body = _body(f"{name} {number}", _ANSWER)
                answer = (await http.post("/v1/chat/completions", json=body)).json()
                tokens[name] += answer["usage"]["completion_tokens"]
                if name == "b":
                    waits.append(answer["timings"]["queue_ms"])
                    lengths.append(answer["timings"]["decode_ms"])

    async with asyncio.TaskGroup() as group:
        numbers = {"a": 16, "b": 1, "c": 8}
        tasks = [
            group.create_task(client(name, 1000 * n))
            for name, num in numbers.items()
            for n in range(num)
        ]
        await asyncio.sleep(5)
        tokens.clear()
        await asyncio.sleep(60)
        by_weight = [tokens["a"], tokens["b"], tokens["c"] / 2]
        tasks += [group.create_task(client("d", 1000 * n)) for n in range(8)]
        tokens.clear()
        await asyncio.sleep(30)
        late = tokens["d"] / (sum(tokens.values()) / 5)
        for task in tasks:
            task.cancel()
    jain = sum(by_weight) ** 2 / (len(by_weight) * sum(value**2 for value in by_weight))
    tally.note_least("Jain's index", jain, 0.95, "")
    wait_ms = sorted(waits)[int(0.95 * len(waits))]
    tally.note("p95 wait of b, in answers", wait_ms / statistics.median(lengths), 1.0, "")
    tally.note("late key, in shares", late, 1.2, "")


def _load(server: Server, key: str = "") -> None:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body = {**_body("load", 4)}
    answer = httpx.post(
        f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=120
    )
    assert answer.status_code == 200, answer.text


@contextmanager
def _server(**env: str) -> Iterator[Server]:
    server = make_server(**env)
    try:
        server.start_all()
        yield server
    finally:
        server.stop()
