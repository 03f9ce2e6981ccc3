"""What every sampling setting does, against plain numpy, on every engine."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from jobs.contract.sampling import Sampling
from tests.engines.driving import (
    GREEDY,
    chat,
    log_probabilities,
    next_token,
    run,
    run_one,
    sequence,
)
from workers.engines import reference_sampler
from workers.engines.base import Engine
from workers.engines.dry import BreakerFinder

# Filters come before the temperature: a high one draws nearly evenly from what they have kept.
EVEN = Sampling(temperature=50.0)
MARGIN = 1e-3  # of probability mass
SLACK = 0.05  # of a logit: in a batch the engines compute in another order than alone


def prompt_of(engine: Engine) -> list[int]:
    return chat(engine, "Tell me")[:-2]  # cut where several tokens are likely


def draws(engine: Engine, sampling: Sampling, count: int = 40) -> set[int]:
    """The token after the prompt under ``count`` seeds."""
    seeded = [msgspec.structs.replace(sampling, seed=seed) for seed in range(count)]
    return {
        transcript.ids[0]
        for transcript in run(engine, [sequence(prompt_of(engine), 1, one) for one in seeded])
    }


def as_likely_as(values: np.ndarray, filtered: np.ndarray) -> set[int]:
    """Tokens about as likely as the least likely one that the filter has kept."""
    return set(np.flatnonzero(values >= values[np.isfinite(filtered)].min() - SLACK).tolist())


def as_typical_as(values: np.ndarray, filtered: np.ndarray) -> set[int]:
    """Tokens about as close to the entropy as the furthest one that the filter has kept."""
    alive = np.isfinite(values)
    entropy = -float((np.exp(values[alive]) * values[alive]).sum())
    distance = np.abs(-values - entropy)
    return set(np.flatnonzero(distance <= distance[np.isfinite(filtered)].max() + SLACK).tolist())


# Filters


@pytest.mark.parametrize("top_k", [2, 5])
def test_top_k_draws_from_the_k_most_likely(engine: Engine, top_k: int) -> None:
    values = log_probabilities(engine, prompt_of(engine))
    drawn = draws(engine, msgspec.structs.replace(EVEN, top_k=top_k))
    assert drawn <= as_likely_as(values, reference_sampler.keep_top_k(values, top_k))
    assert len(drawn) == top_k


def test_top_k_of_one_is_greedy(engine: Engine) -> None:
    prompt = prompt_of(engine)
    only_best = Sampling(temperature=5.0, top_k=1, seed=3, ignore_eos=True)
    assert run_one(engine, prompt, 10, only_best).ids == run_one(engine, prompt, 10, GREEDY).ids


@pytest.mark.parametrize("top_p", [0.5, 0.9, 0.99])
def test_top_p_draws_from_the_likeliest_mass(engine: Engine, top_p: float) -> None:
    values = log_probabilities(engine, prompt_of(engine))
    drawn = draws(engine, msgspec.structs.replace(EVEN, top_p=top_p))
    assert drawn <= as_likely_as(values, reference_sampler.keep_top_p(values, top_p + MARGIN))


@pytest.mark.parametrize("min_p", [0.5, 0.05, 0.001])
def test_min_p_draws_from_what_is_likely_enough(engine: Engine, min_p: float) -> None:
    values = log_probabilities(engine, prompt_of(engine))
    drawn = draws(engine, msgspec.structs.replace(EVEN, min_p=min_p))
    assert drawn <= as_likely_as(values, reference_sampler.keep_min_p(values, min_p))


@pytest.mark.parametrize("typical_p", [0.2, 0.9])
def test_typical_p_draws_from_the_typical_mass(engine: Engine, typical_p: float) -> None:
    values = log_probabilities(engine, prompt_of(engine))
    drawn = draws(engine, msgspec.structs.replace(EVEN, typical_p=typical_p))
    assert drawn <= as_typical_as(
        values, reference_sampler.keep_typical(values, typical_p + MARGIN)
    )


def test_typical_p_bears_forbidden_tokens(engine: Engine) -> None:
    """A token of probability 0 must not turn the entropy into NaN."""
    values = log_probabilities(engine, prompt_of(engine))
    best = int(np.argmax(values))
    values[[best, *engine.tokenizer.end_ids]] = -np.inf
    values = reference_sampler.log_softmax(values)
    sampling = Sampling(temperature=50.0, typical_p=0.5, logit_bias={best: -1e9}, ignore_eos=True)
    allowed = as_typical_as(values, reference_sampler.keep_typical(values, 0.5 + MARGIN))
    assert draws(engine, sampling) <= allowed
    assert len(allowed) < len(values) / 2


@pytest.mark.parametrize("num", [0.5, 1.5, 3.0])
def test_top_n_sigma_draws_from_what_is_near_the_likeliest(engine: Engine, num: float) -> None:
    values = log_probabilities(engine, prompt_of(engine))
    drawn = draws(engine, msgspec.structs.replace(EVEN, top_n_sigma=num))
    kept = reference_sampler.keep_top_n_sigma(values, num)
    kept[kept == reference_sampler.IMPOSSIBLE] = -np.inf
    assert drawn <= as_likely_as(values, kept)


def test_xtc_excludes_the_likeliest_but_for_the_last_of_them(engine: Engine) -> None:
    values = log_probabilities(engine, prompt_of(engine))
    likeliest = np.sort(np.exp(values))[::-1]
    threshold = float((likeliest[2] + likeliest[3]) / 2)  # so three of them are to be had
    left = reference_sampler.exclude_top(values, threshold)
    top = values >= left.max() + SLACK
    always = msgspec.structs.replace(EVEN, top_k=8, xtc_probability=1.0, xtc_threshold=threshold)
    assert not draws(engine, always) & set(np.flatnonzero(top).tolist())
    sometimes = msgspec.structs.replace(always, xtc_probability=0.5)
    assert draws(engine, sometimes) & set(np.flatnonzero(top).tolist())


def test_a_dynamic_temperature_follows_the_entropy(engine: Engine) -> None:
    best = int(np.argmax(log_probabilities(engine, prompt_of(engine))))
    dynamic = Sampling(temperature=2.0, dynatemp_range=2.0, dynatemp_exponent=100.0)
    assert draws(engine, dynamic, 8) == {best}
    hot = msgspec.structs.replace(dynamic, dynatemp_exponent=0.0)  # always at its upper end
    assert len(draws(engine, hot)) > 3


def test_filters_work_on_what_the_earlier_ones_left(engine: Engine) -> None:
    values = log_probabilities(engine, prompt_of(engine))
    both = reference_sampler.keep_top_p(reference_sampler.keep_top_k(values, 3), 0.6 + MARGIN)
    drawn = draws(engine, msgspec.structs.replace(EVEN, top_k=3, top_p=0.6))
    assert drawn <= as_likely_as(values, both)


def test_without_filters_every_token_can_be_drawn(engine: Engine) -> None:
    assert len(draws(engine, EVEN)) > 20


def test_a_low_temperature_is_nearly_greedy(engine: Engine) -> None:
    best = int(np.argmax(log_probabilities(engine, prompt_of(engine))))
    assert draws(engine, Sampling(temperature=1e-3), 8) == {best}


# Bias and penalties


def test_a_high_bias_forces_a_token(engine: Engine) -> None:
    token_id = engine.tokenizer.encode("q", add_special=False, parse_special=False)[0]
    sampling = msgspec.structs.replace(GREEDY, logit_bias={token_id: 100.0})
    assert run_one(engine, prompt_of(engine), 4, sampling).ids == [token_id] * 4


def test_a_low_bias_forbids_a_token(engine: Engine) -> None:
    best, second = np.argsort(-log_probabilities(engine, prompt_of(engine)))[:2].tolist()
    sampling = msgspec.structs.replace(GREEDY, logit_bias={best: -100.0}, ignore_eos=False)
    assert next_token(engine, prompt_of(engine), sampling).token_id == second
    assert best not in draws(engine, msgspec.structs.replace(EVEN, logit_bias={best: -1e9}))


@pytest.mark.parametrize("window", [0, 1, 3, 100])
@pytest.mark.parametrize(
    "penalty",
    [
        Sampling(temperature=0.0, presence_penalty=1.5),
        Sampling(temperature=0.0, frequency_penalty=0.7),
        Sampling(temperature=0.0, presence_penalty=-2.0),
    ],
    ids=["presence", "frequency", "negative"],
)
def test_subtracted_penalties_follow_numpy(engine: Engine, penalty: Sampling, window: int) -> None:
    prompt = prompt_of(engine)
    values = log_probabilities(engine, prompt)
    rivals = np.argsort(-values)[:3].tolist()
    prompt = [*rivals[:1] * 3, *rivals[1:2], *prompt]  # shown often, seldom, never
    sampling = msgspec.structs.replace(penalty, repetition_context_size=window)
    penalised = reference_sampler.penalise(log_probabilities(engine, prompt), prompt, sampling)
    assert next_token(engine, prompt, sampling).token_id == int(np.argmax(penalised))


def test_a_repetition_penalty_prefers_what_was_not_said(engine: Engine) -> None:
    values = log_probabilities(engine, prompt_of(engine))
    prompt = [int(np.argmax(values)), *prompt_of(engine)]
    values = log_probabilities(engine, prompt)
    values[prompt] = -np.inf
    sampling = Sampling(
        temperature=0.0, repetition_penalty=1e6, repetition_context_size=len(prompt)
    )
    assert next_token(engine, prompt, sampling).token_id == int(np.argmax(values))


def test_penalties_see_what_was_generated(engine: Engine) -> None:
    sampling = msgspec.structs.replace(GREEDY, presence_penalty=1e4, repetition_context_size=1000)
    ids = run_one(engine, prompt_of(engine), 30, sampling).ids
    assert len(set(ids)) == 30
    assert not set(ids) & set(prompt_of(engine))


def test_an_absurd_window_is_as_good_as_the_whole_sequence(engine: Engine) -> None:
    def text(window: int) -> list[int]:
        sampling = msgspec.structs.replace(
            GREEDY, frequency_penalty=1.0, repetition_context_size=window
        )
        return run_one(engine, prompt_of(engine), 10, sampling).ids

    assert text(2**31 - 1) == text(1000)


@pytest.mark.parametrize("num_kept", [-1, 0, 6, 1000])
@pytest.mark.parametrize("breakers", [("\n", ":"), ("l",)])
def test_dry_follows_numpy(engine: Engine, num_kept: int, breakers: tuple[str, ...]) -> None:
    said = engine.tokenizer.encode("Tell me all", add_special=False, parse_special=False)
    best = int(np.argmax(log_probabilities(engine, said)))
    prompt = [*said, best, *said, best, *said]
    sampling = Sampling(
        temperature=0.0, dry_multiplier=3.0, dry_allowed_length=1,
        dry_penalty_last_n=num_kept, dry_sequence_breakers=breakers,
    )  # fmt: skip
    found = BreakerFinder(engine.tokenizer).of(sampling)
    values = reference_sampler.disfavour(log_probabilities(engine, prompt), prompt, sampling, found)
    assert next_token(engine, prompt, sampling).token_id == int(np.argmax(values))


def test_dry_keeps_a_text_from_going_round_in_circles(engine: Engine) -> None:
    circle = engine.tokenizer.encode("one two three ", add_special=False, parse_special=False)
    prompt = circle * 6
    sampling = msgspec.structs.replace(GREEDY, dry_multiplier=50.0)
    ids = run_one(engine, prompt, 40, sampling).ids
    triples = [tuple(ids[i : i + 4]) for i in range(len(ids) - 3)]
    assert len(set(triples)) == len(triples)


# Log-probabilities


def test_log_probabilities_are_the_log_softmax_of_raw_logits(engine: Engine) -> None:
    vocab_size = engine.info.vocab_size
    plain = Sampling(temperature=0.0, num_logprobs=vocab_size)
    token = next_token(engine, prompt_of(engine), plain)
    entries = dict(token.top_logprobs)
    assert len(entries) == vocab_size
    assert np.exp(list(entries.values())).sum() == pytest.approx(1.0, abs=1e-4)
    assert list(entries.values()) == sorted(entries.values(), reverse=True)
    assert token.top_logprobs[0][0] == token.token_id
    assert token.logprob == pytest.approx(entries[token.token_id], abs=1e-5)


def test_sampling_settings_do_not_move_log_probabilities(engine: Engine) -> None:
    plain = Sampling(temperature=0.0, num_logprobs=5)
    best = next_token(engine, prompt_of(engine), plain)
    odd = msgspec.structs.replace(
        plain, temperature=3.0, top_k=2, logit_bias={best.token_id: -100.0}, presence_penalty=1.0
    )
    other = next_token(engine, prompt_of(engine), odd)
    assert other.token_id != best.token_id
    assert [i for i, _ in other.top_logprobs] == [i for i, _ in best.top_logprobs]
    for (_, expected), (_, value) in zip(best.top_logprobs, other.top_logprobs, strict=True):
        assert value == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("num_logprobs", [0, 1, 5])
def test_as_many_alternatives_come_as_asked_for(engine: Engine, num_logprobs: int) -> None:
    sampling = msgspec.structs.replace(GREEDY, num_logprobs=num_logprobs)
    for token in run_one(engine, prompt_of(engine), 4, sampling).tokens:
        assert len(token.top_logprobs) == num_logprobs
        assert token.logprob is not None
        assert token.logprob <= 0.0


def test_who_does_not_ask_gets_none(engine: Engine) -> None:
    asks = msgspec.structs.replace(GREEDY, num_logprobs=2)
    asking, silent = run(
        engine, [sequence(prompt_of(engine), 4, sampling) for sampling in (asks, GREEDY)]
    )
    assert asking.ids == silent.ids
    assert all(token.logprob is None and token.top_logprobs == () for token in silent.tokens)
    assert all(len(token.top_logprobs) == 2 for token in asking.tokens)
