"""The reference sampler: what each setting means, on distributions small enough to see."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from jobs.contract.sampling import Sampling
from workers.engines.reference_sampler import (
    IMPOSSIBLE,
    add_bias,
    apply_filters,
    exclude_top,
    heat,
    keep_min_p,
    keep_top_k,
    keep_top_n_sigma,
    keep_top_p,
    keep_typical,
    log_softmax,
    penalise,
    sample,
    softmax,
    top_logprobs,
)

LOGITS = npst.arrays(np.float64, st.integers(2, 30), elements=st.floats(-30, 30, width=32))


def logits_of(*probabilities: float) -> np.ndarray:
    return np.log(np.array(probabilities))


def kept(logits: np.ndarray) -> list[int]:
    return [int(index) for index in np.flatnonzero(np.isfinite(logits))]


def test_top_k_keeps_the_most_likely() -> None:
    logits = logits_of(0.1, 0.4, 0.2, 0.3)
    assert kept(keep_top_k(logits, 2)) == [1, 3]
    assert kept(keep_top_k(logits, 0)) == [0, 1, 2, 3]
    assert kept(keep_top_k(logits, 99)) == [0, 1, 2, 3]


def test_top_p_keeps_the_smallest_set_with_that_mass() -> None:
    logits = logits_of(0.1, 0.4, 0.2, 0.3)
    assert kept(keep_top_p(logits, 0.39)) == [1]
    assert kept(keep_top_p(logits, 0.41)) == [1, 3]
    assert kept(keep_top_p(logits, 0.95)) == [0, 1, 2, 3]


def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest() -> None:
    logits = logits_of(0.1, 0.5, 0.15, 0.25)
    assert kept(keep_min_p(logits, 0.25)) == [1, 2, 3]
    assert kept(keep_min_p(logits, 1.0)) == [1]


def test_typical_keeps_what_surprises_as_much_as_expected() -> None:
    logits = logits_of(0.9, 0.04, 0.03, 0.03)
    assert 0 in kept(keep_typical(logits, 0.5))
    flat = logits_of(0.5, 0.125, 0.125, 0.125, 0.125)
    assert 0 not in kept(keep_typical(flat, 0.1)), "the likeliest is not the most typical"


def test_top_n_sigma_keeps_what_is_near_the_likeliest() -> None:
    logits = np.array([4.0, 3.0, 0.0, -1.0, -np.inf])  # deviation 2.06 of those that count
    found = keep_top_n_sigma(logits, 1.0)
    assert found.tolist() == [4.0, 3.0, IMPOSSIBLE, IMPOSSIBLE, -np.inf]
    assert np.flatnonzero(softmax(found)).tolist() == [0, 1]
    assert keep_top_n_sigma(logits, -1.0) is logits


def test_xtc_leaves_the_last_of_the_likely_ones() -> None:
    logits = logits_of(0.4, 0.05, 0.3, 0.15, 0.1)
    assert kept(exclude_top(logits, 0.12)) == [1, 3, 4]
    assert kept(exclude_top(logits, 0.35)) == [0, 1, 2, 3, 4]
    assert kept(exclude_top(logits, 0.5)) == [0, 1, 2, 3, 4]
    assert kept(exclude_top(logits, 0.0)) == [1]


def test_xtc_comes_last_and_only_at_its_places() -> None:
    logits = logits_of(0.4, 0.05, 0.3, 0.15, 0.1)
    sampling = Sampling(min_p=0.3, xtc_probability=0.5, xtc_threshold=0.2, seed=3)
    for position in range(20):
        expected = [2, 3] if sampling.has_xtc_at(position) else [0, 2, 3]
        assert kept(apply_filters(logits, sampling, position)) == expected


def test_a_dynamic_temperature_is_high_where_the_model_is_unsure() -> None:
    def heated(logits: np.ndarray, **settings: float) -> float:
        found = heat(logits, Sampling(temperature=1.0, dynatemp_range=0.5, **settings))
        return float((logits[0] - logits[1]) / (found[0] - found[1]))

    sure, unsure = logits_of(0.999, 0.0005, 0.0005), logits_of(0.34, 0.33, 0.33)
    assert heated(sure) == pytest.approx(0.5, abs=0.02)
    assert heated(unsure) == pytest.approx(1.5, abs=0.02)
    half = logits_of(0.8, 0.1, 0.1)
    assert heated(half, dynatemp_exponent=2.0) < heated(half) < heated(half, dynatemp_exponent=0.5)


def test_a_dynamic_temperature_may_come_down_to_none() -> None:
    cold = Sampling(temperature=0.5, dynatemp_range=2.0)
    sure = np.array([5.0, -np.inf, -200.0])
    assert softmax(heat(sure, cold)).tolist() == [1.0, 0.0, 0.0]
    assert softmax(heat(np.array([5.0, -np.inf]), cold)).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("keep", [keep_top_p, keep_min_p, keep_typical])
@given(logits=LOGITS, amount=st.floats(0.001, 1.0))
def test_every_filter_keeps_something_and_changes_no_logit(keep, logits, amount) -> None:
    found = keep(logits, amount)
    left = kept(found)
    assert left
    assert np.array_equal(found[left], logits[left])


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(top_k=1), Sampling(top_p=1e-9), Sampling(min_p=1.0), Sampling(temperature=1e-4),
        Sampling(temperature=0.0), Sampling(top_n_sigma=1e-9),
    ],
)  # fmt: skip
@given(logits=LOGITS, seed=st.integers(0, 2**32))
def test_the_narrowest_settings_give_a_likeliest_token(sampling, logits, seed) -> None:
    sampling = Sampling(**{f: getattr(sampling, f) for f in sampling.__struct_fields__} | {"seed": seed})  # fmt: skip  # noqa: E501
    drawn = sample(logits, [1, 2, 3], sampling)
    assert logits[drawn] >= logits.max() - 2e-3


@given(logits=LOGITS, seed=st.integers(0, 2**32), position=st.integers(1, 50))
def test_a_draw_depends_on_seed_and_position_only(logits, seed, position) -> None:
    sampling = Sampling(seed=seed)
    first = sample(logits, [5] * position, sampling)
    assert sample(logits, list(range(position)), sampling) == first


def test_draws_follow_the_probabilities() -> None:
    logits = logits_of(0.7, 0.2, 0.1)
    counts = np.bincount(
        [sample(logits, [0], Sampling(seed=seed)) for seed in range(4000)], minlength=3
    )
    assert np.allclose(counts / 4000, [0.7, 0.2, 0.1], atol=0.03)


def test_temperature_flattens() -> None:
    logits = logits_of(0.9, 0.1)
    draws = [sample(logits, [0], Sampling(seed=seed, temperature=100.0)) for seed in range(1000)]
    assert 0.4 < np.mean(draws) < 0.6


def test_repetition_makes_what_was_said_less_likely_whatever_its_sign() -> None:
    logits = np.array([2.0, -2.0, 1.0])
    found = penalise(logits, [0, 1], Sampling(repetition_penalty=2.0))
    assert found.tolist() == [1.0, -4.0, 1.0]


def test_frequency_counts_and_presence_does_not() -> None:
    logits = np.zeros(3)
    sampling = Sampling(frequency_penalty=0.5, presence_penalty=0.25)
    assert penalise(logits, [0, 0, 1], sampling).tolist() == [-1.25, -0.75, 0.0]


def test_penalties_look_back_as_far_as_they_are_told() -> None:
    logits = np.ones(3)
    sampling = Sampling(repetition_penalty=2.0, repetition_context_size=2)
    assert penalise(logits, [0, 1, 2], sampling).tolist() == [1.0, 0.5, 0.5]


@given(LOGITS)
def test_neutral_settings_change_nothing(logits) -> None:
    assert penalise(logits, [0, 1], Sampling()) is logits
    assert np.array_equal(add_bias(logits, {}), logits)


def test_a_bias_decides() -> None:
    logits = np.zeros(4)
    assert sample(logits, [0], Sampling(logit_bias={2: 100.0})) == 2
    assert sample(logits, [0], Sampling(temperature=0.0, logit_bias={0: -100.0, 1: 1.0})) == 1
    assert logits.tolist() == [0.0] * 4


@given(LOGITS)
def test_log_softmax_is_the_logarithm_of_softmax(logits) -> None:
    assert np.allclose(np.exp(log_softmax(logits)), softmax(logits))
    assert np.isclose(softmax(logits).sum(), 1.0)


def test_the_top_is_ordered_by_likelihood() -> None:
    assert top_logprobs(np.array([-3.0, -1.0, -2.0]), 2) == ((1, -1.0), (2, -2.0))
    assert top_logprobs(np.array([-1.0]), 0) == ()
