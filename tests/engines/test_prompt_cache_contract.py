"""Kept KV state changes the time to the first token, never a token."""

from __future__ import annotations

import random
from collections.abc import Sequence as ListLike

import pytest

from jobs.contract.sampling import Sampling
from tests.engines.conftest import OpenEngine
from tests.engines.driving import Transcript, chat, run, run_one, sequence, step_until
from workers.engines.base import Engine, EngineOptions, Token

SYSTEM = list(range(40, 200)) * 2  # a long beginning that several prompts share
WITHOUT = EngineOptions(prompt_cache_bytes=0)
TO_THE_END = Sampling(temperature=0.0)


@pytest.fixture
def caching(open_with: OpenEngine) -> Engine:
    """An engine whose cache is empty."""
    return open_with(EngineOptions())


@pytest.fixture
def uncached(open_with: OpenEngine) -> Engine:
    return open_with(WITHOUT)


def texts_of(transcripts: ListLike[Transcript]) -> list[list[int]]:
    return [one.ids for one in transcripts]


def num_cached(transcript: Transcript) -> int:
    return transcript.prefills[-1].num_cached


def alone(engine: Engine, prompts: list[list[int]]) -> list[list[int]]:
    return [run_one(engine, prompt).ids for prompt in prompts]


def test_the_next_turn_of_a_chat_reuses_the_turns_before(caching: Engine, uncached: Engine) -> None:
    first = [*SYSTEM, 50, 51, 52]
    answer = run_one(caching, first).ids
    second = [*first, *answer, 60, 61, 62]
    transcript = run_one(caching, second)
    assert len(first) + len(answer) - 1 <= num_cached(transcript) < len(second)
    assert transcript.ids == run_one(uncached, second).ids


def test_prompts_that_share_a_beginning_compute_it_once(caching: Engine, uncached: Engine) -> None:
    prompts = [SYSTEM + [50 + number] * 5 for number in range(6)]
    transcripts = run(caching, [sequence(prompt) for prompt in prompts])
    assert sorted(map(num_cached, transcripts)) == [0, *[len(SYSTEM)] * 5]
    assert texts_of(transcripts) == alone(uncached, prompts)


def test_one_that_comes_while_another_decodes_shares_its_beginning(
    caching: Engine, uncached: Engine
) -> None:
    early, late = sequence([*SYSTEM, 7, 8], 40), [*SYSTEM, 9, 10]
    caching.submit(early)
    step_until(caching, early.sequence_id, 3)
    transcripts = {early.sequence_id: Transcript()}
    one = sequence(late)
    caching.submit(one)
    transcripts[one.sequence_id] = Transcript()
    while caching.has_work:
        for event in caching.step():
            if isinstance(event, Token):
                transcripts[event.sequence_id].tokens.append(event)
    assert transcripts[one.sequence_id].ids == run_one(uncached, late).ids


def test_the_same_prompt_again_computes_its_last_token_only(caching: Engine) -> None:
    first = run_one(caching, SYSTEM)
    again = run_one(caching, SYSTEM)
    assert again.ids == first.ids
    assert num_cached(again) == len(SYSTEM) - 1


def test_an_aborted_prompt_leaves_what_it_had_done(caching: Engine, uncached: Engine) -> None:
    one = sequence(SYSTEM, 50)
    caching.submit(one)
    for _ in range(4):
        caching.step()
    caching.abort(one.sequence_id)
    transcript = run_one(caching, [*SYSTEM, 7, 8, 9])
    assert num_cached(transcript) > 0
    assert transcript.ids == run_one(uncached, [*SYSTEM, 7, 8, 9]).ids


def test_a_small_budget_keeps_little_and_stays_right(
    open_with: OpenEngine, uncached: Engine
) -> None:
    engine = open_with(EngineOptions(prompt_cache_bytes=400_000))
    prompts = [[start + step for step in range(150)] for start in range(10, 60, 10)]
    for _ in range(2):
        assert alone(engine, prompts) == alone(uncached, prompts)


def test_without_a_budget_nothing_is_reused(uncached: Engine) -> None:
    run_one(uncached, SYSTEM)
    assert num_cached(run_one(uncached, SYSTEM)) == 0


def sensible_texts(dice: random.Random, count: int) -> list[str]:
    """Questions with common beginnings."""
    first = ["What is 3 + 4?", "Count from 2 to 9.", "Hello!", "Spell the word house."]
    return [" ".join(dice.choice(first) for _ in range(dice.randrange(1, 6))) for _ in range(count)]


def test_many_prompts_with_common_beginnings_and_random_aborts(
    caching: Engine, uncached: Engine
) -> None:
    """Every text that runs to its end is the one that an empty engine gives."""
    dice = random.Random(11)
    # Sensible ones, and no further than they go: noise has near-ties, which the last bits of a
    # logit decide.
    prompts = [chat(caching, text) for text in sensible_texts(dice, 64)]
    expected = [run_one(uncached, prompt, 12, TO_THE_END).ids for prompt in prompts]
    waiting = [
        (sequence(prompt, 12, TO_THE_END), text)
        for prompt, text in zip(prompts, expected, strict=True)
    ]
    open_ones: dict[int, tuple[list[int], list[int]]] = {}
    num_whole = 0
    while waiting or open_ones:
        while waiting and len(open_ones) < 12:
            one, text = waiting.pop()
            caching.submit(one)
            open_ones[one.sequence_id] = [], text
        for event in caching.step():
            if isinstance(event, Token) and event.sequence_id in open_ones:
                got, text = open_ones[event.sequence_id]
                got.append(event.token_id)
                assert got == text[: len(got)]
                if event.finish is not None:
                    num_whole += 1
                    del open_ones[event.sequence_id]
        if open_ones and dice.random() < 0.15:
            victim = dice.choice(list(open_ones))
            caching.abort(victim)
            del open_ones[victim]
    assert num_whole >= 30
