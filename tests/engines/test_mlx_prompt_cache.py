"""Kept KV state changes the time to the first token, never a token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.contract.sampling import Sampling
from workers.engines.base import EngineOptions, Prefill, Sequence, Token
from workers.engines.mlx.engine import MlxEngine, open_mlx

DEMO = Path(__file__).parents[2] / "models" / "demo"
SYSTEM = list(range(40, 200)) * 2  # a long beginning that several prompts share


def opened(**options: int) -> MlxEngine:
    return open_mlx(DEMO, EngineOptions(**options), lambda fraction: None)


@pytest.fixture
def engine() -> Iterator[MlxEngine]:
    engine = opened()
    yield engine
    engine.close()


def run(engine: MlxEngine, prompts: list[list[int]]) -> tuple[list[list[int]], list[int]]:
    """The greedy tokens of each prompt, all run together, and how many tokens were cached."""
    tokens: list[list[int]] = [[] for _ in prompts]
    cached = [0] * len(prompts)
    for number, prompt in enumerate(prompts):
        engine.submit(Sequence(number, prompt, 12, Sampling(temperature=0.0, ignore_eos=True)))
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, Token):
                tokens[event.sequence_id].append(event.token_id)
            elif isinstance(event, Prefill):
                cached[event.sequence_id] = event.num_cached
    return tokens, cached


def uncached(prompts: list[list[int]]) -> list[list[int]]:
    engine = opened(prompt_cache_bytes=0)
    try:
        return [run(engine, [prompt])[0][0] for prompt in prompts]
    finally:
        engine.close()


def test_the_next_turn_of_a_chat_reuses_the_turns_before(engine: MlxEngine) -> None:
    first = [*SYSTEM, 50, 51, 52]
    answer = run(engine, [first])[0][0]
    second = first + answer + [60, 61, 62]
    tokens, cached = run(engine, [second])
    assert len(first) + len(answer) - 1 <= cached[0] < len(second)
    assert tokens == uncached([second])


def start(engine: MlxEngine, prompt: list[int]) -> None:
    """Submit the prompt and run it to its first token."""
    engine.submit(Sequence(0, prompt, 12, Sampling(temperature=0.0, ignore_eos=True)))
    while not any(isinstance(event, Token) for event in engine.step()):
        pass


def test_the_next_turn_takes_the_memory_over(engine: MlxEngine) -> None:
    answer = run(engine, [SYSTEM])[0][0]
    assert len(engine._store) == 1
    start(engine, SYSTEM + answer + [60, 61, 62])
    assert (len(engine._store), engine._store.num_bytes) == (0, 0)
    engine.abort(0)
    assert len(engine._store) == 1
    assert run(engine, [SYSTEM + answer + [60, 61, 62, 63]])[1][0] >= len(SYSTEM + answer)


def test_another_beginning_of_a_long_text_leaves_it_what_it_has(engine: MlxEngine) -> None:
    run(engine, [SYSTEM])
    start(engine, [*SYSTEM[:200], 7, 8, 9])
    assert len(engine._store) == 1
    engine.abort(0)
    tokens, cached = run(engine, [[*SYSTEM, 50]])
    assert cached == [len(SYSTEM)]
    assert tokens == uncached([[*SYSTEM, 50]])


def test_two_turns_after_the_same_one_share_it(engine: MlxEngine) -> None:
    answer = run(engine, [SYSTEM])[0][0]
    turns = [SYSTEM + answer + [60 + number] * 4 for number in range(3)]
    tokens, cached = run(engine, turns)
    assert all(num >= len(SYSTEM) + len(answer) - 1 for num in cached)
    assert tokens == uncached(turns)


def test_prompts_that_share_a_beginning_compute_it_once(engine: MlxEngine) -> None:
    prompts = [SYSTEM + [50 + number] * 5 for number in range(6)]
    tokens, cached = run(engine, prompts)
    assert sorted(cached)[1:] == [len(SYSTEM)] * 5
    assert tokens == uncached(prompts)


def test_the_same_prompt_again_computes_its_last_token_only(engine: MlxEngine) -> None:
    first, _ = run(engine, [SYSTEM])
    again, cached = run(engine, [SYSTEM])
    assert again == first
    assert cached == [len(SYSTEM) - 1]


def test_an_aborted_prompt_leaves_what_it_had_done(engine: MlxEngine) -> None:
    engine.submit(Sequence(99, SYSTEM, 50, Sampling(temperature=0.0, ignore_eos=True)))
    for _ in range(4):
        engine.step()
    engine.abort(99)
    tokens, cached = run(engine, [[*SYSTEM, 7, 8, 9]])
    assert cached[0] > 0
    assert tokens == uncached([[*SYSTEM, 7, 8, 9]])


def test_a_small_budget_keeps_little_and_stays_right() -> None:
    engine = opened(prompt_cache_bytes=200_000)
    prompts = [[start + step for step in range(150)] for start in range(10, 60, 10)]
    for _ in range(2):
        for prompt, expected in zip(prompts, uncached(prompts), strict=True):
            assert run(engine, [prompt])[0] == [expected]
    engine.close()


def test_without_a_budget_nothing_is_reused() -> None:
    engine = opened(prompt_cache_bytes=0)
    run(engine, [SYSTEM])
    assert run(engine, [SYSTEM])[1] == [0]
    engine.close()
