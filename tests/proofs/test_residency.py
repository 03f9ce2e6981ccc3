"""Models that share a machine: plans, turns, first requests, times to live."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.helpers.planner_world import PlannerWorld
from tests.helpers.server import Server, make_server
from tests.proofs.registry import Result, Tally, proof

_STEPS = 500  # of one world
_NUM_FIRST = 50
_NUM_CLIENTS = 3  # per model


@proof(
    "planner",
    goal="at each step: reserved <= budget, nothing busy, loading or pinned is parked, each demand "
    "is started, waits or is refused, no swap without demand; a batch takes no room that a person "
    "uses or waits for, and gives its own at once; each is started in its turn",
    full=400,
)
def test_no_plan_breaks_a_rule(rounds: int) -> Result:
    """A round is a world of 2 to 7 models over 500 ticks of about a second."""
    tally, num_swaps = Tally(), 0
    for seed in range(rounds):
        world = PlannerWorld(seed)
        try:
            for _ in range(_STEPS):
                world.step()
        except AssertionError as error:
            tally.check(False, f"world {seed}: {error}")
        turn_s = world.load_s + 40.0  # load, an answer that runs on, least residence
        limit_s = 20.0 + turn_s * len(world.models)
        tally.check(world.longest_wait_s <= limit_s, f"world {seed}: {world.longest_wait_s} s")
        num_swaps += sum(world.swaps.values())
        tally.rounds += 1
    return tally.result(f"{rounds * _STEPS} steps, {num_swaps} models gave way")


@proof(
    "turns",
    goal="0 errors, no job waits longer than 60 s, <= 1 swap per 20 s",
    full=10,
    timeout_s=900,
)
def test_two_models_that_do_not_fit_together_answer_constant_traffic(rounds: int) -> Result:
    """A round is a minute."""
    tally = Tally()
    with _server(MGS_MODELS_MAX="1") as server:
        end = time.monotonic() + 60 * rounds
        models = ("fake-20ms", "fake-21ms")
        with ThreadPoolExecutor(2 * _NUM_CLIENTS) as pool:
            futures = [
                pool.submit(_ask_until, server, model, end)
                for model in models
                for _ in range(_NUM_CLIENTS)
            ]
            waits = [wait for future in futures for wait in future.result()]
        tally.check(all(wait is not None for wait in waits), "a request failed")
        tally.note("longest answer", max(wait for wait in waits if wait is not None), 60.0)
        log = (server.folder / "workers.log").read_text()
        num_swaps = log.count("model parked")
        tally.note("swaps per 20 s", num_swaps / (3 * rounds), 1.0, "")
        tally.rounds = rounds
    return tally.result(f"{len(waits)} answers in {rounds} min, {num_swaps} swaps")


@proof("first-requests", goal="one process, all answered", full=20, timeout_s=600)
def test_fifty_first_requests_at_once_start_one_process(rounds: int) -> Result:
    tally = Tally()
    with _server() as server, ThreadPoolExecutor(_NUM_FIRST) as pool:
        for index in range(rounds):
            model = f"fake-{index + 1}ms"
            found = list(pool.map(lambda _, m=model: _ask(server, m, 4), range(_NUM_FIRST)))
            tally.check(all(wait is not None for wait in found), f"round {index}: a request failed")
            log = (server.folder / "workers.log").read_text()
            started = log.count(f'worker started slug="{model}"')
            tally.check(started == 1, f"round {index}: {started} processes")
            server.unload(model)
            tally.rounds += 1
    return tally.result(f"{rounds * _NUM_FIRST} requests")


@proof("time-to-live", goal="0 answers cut by a ttl of 1 s", full=200, timeout_s=3600)
def test_a_time_to_live_cuts_no_answer(rounds: int) -> Result:
    """Answers of 5 s, with pauses around the ttl between them."""
    tally = Tally()
    with _server(MGS_TTL_S="1") as server:
        for index in range(rounds):
            is_whole = _ask(server, "fake-20ms", 250) is not None
            tally.check(is_whole, f"round {index}: the answer failed")
            time.sleep(0.5 + (index % 8) * 0.15)
            tally.rounds += 1
        log = (server.folder / "workers.log").read_text()
    return tally.result(f"parked {log.count('model parked')} times")


@contextmanager
def _server(**env: str) -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="mgs-models-"))
    server = make_server(MGS_FAKE_ENGINE="true", MGS_MODELS_DIR=str(folder), **env)
    try:
        server.start_all()
        yield server
    finally:
        server.stop()


def _ask_until(server: Server, model: str, end: float) -> list[float | None]:
    waits: list[float | None] = []
    while time.monotonic() < end:
        waits.append(_ask(server, model, 60))
    return waits


def _ask(server: Server, model: str, num_tokens: int) -> float | None:
    """Seconds until the answer; ``None`` for an error, or one that is cut."""
    body = {"model": model, "prompt": "x" * 8, "max_tokens": num_tokens}
    start = time.monotonic()
    answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=120)
    is_whole = answer.status_code == 200 and _num_tokens(answer) == num_tokens
    return time.monotonic() - start if is_whole else None


def _num_tokens(answer: httpx.Response) -> int:
    return int(json.loads(answer.text)["usage"]["completion_tokens"])
