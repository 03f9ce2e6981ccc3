"""Log-probabilities of a prompt's own tokens."""

from __future__ import annotations

import dataclasses

import pytest

from jobs.contract.sampling import Sampling
from tests.engines.driving import drain, ids_of, log_probabilities, run_one, sequence
from workers.engines.base import Engine, PromptLogprobs, Token

PROMPT = [(7 * step) % 240 + 10 for step in range(150)]


def scored(engine: Engine, prompts: list[list[int]], num_top: int) -> list[PromptLogprobs]:
    """The event of each prompt; all run together."""
    ones = [
        dataclasses.replace(sequence(prompt, 3), num_prompt_logprobs=num_top) for prompt in prompts
    ]
    for one in ones:
        engine.submit(one)
    events = drain(engine)
    for one in ones:
        kinds = [type(e) for e in events if e.sequence_id == one.sequence_id]
        assert kinds.count(PromptLogprobs) == 1
        assert kinds.index(PromptLogprobs) < kinds.index(Token)
    found = {e.sequence_id: e for e in events if isinstance(e, PromptLogprobs)}
    return [found[one.sequence_id] for one in ones]


def test_each_is_the_one_after_the_tokens_before_it(engine: Engine) -> None:
    (event,) = scored(engine, [PROMPT], 2)
    assert len(event.entries) == len(PROMPT) - 1
    for place in (0, 1, 63, 64, 148):
        expected = log_probabilities(engine, PROMPT[: place + 1])
        logprob, top = event.entries[place]
        assert logprob == pytest.approx(expected[PROMPT[place + 1]], abs=0.02)
        assert [token for token, _ in top] == expected.argsort()[::-1][:2].tolist()
        assert top[0][1] == pytest.approx(expected.max(), abs=0.02)


def test_several_at_once_after_others_were_cached(engine: Engine) -> None:
    prompts = [PROMPT[:n] for n in (150, 149, 2, 70)]
    run_one(engine, PROMPT)
    for event, prompt in zip(scored(engine, prompts, 0), prompts, strict=True):
        assert len(event.entries) == len(prompt) - 1
        assert [top for _, top in event.entries] == [()] * (len(prompt) - 1)


def test_a_prompt_of_one_token_has_none(engine: Engine) -> None:
    (event,) = scored(engine, [[40]], 1)
    assert event.entries == ()


def test_the_text_is_the_same_as_without(engine: Engine) -> None:
    expected = run_one(engine, PROMPT, 8).ids
    one = dataclasses.replace(
        sequence(PROMPT, 8, Sampling(temperature=0.0, ignore_eos=True)), num_prompt_logprobs=1
    )
    engine.submit(one)
    assert ids_of(drain(engine), one.sequence_id) == expected
