"""Mirostat on distributions small enough to see; beside llama.cpp's in tests/engines."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from jobs.contract.sampling import Sampling
from workers.engines import mirostat

LOGITS = npst.arrays(
    np.float64,
    st.integers(1, 300),
    elements=st.floats(-30, 30, width=32) | st.sampled_from([0.0, -1e9]),
)
MODES = pytest.mark.parametrize("mode", [1, 2])
EVEN = np.full(8, 0.125)  # a surprise of 3 bits each


def test_mode_2_keeps_what_surprises_no_more_than_mu() -> None:
    probabilities = np.array([0.125, 0.5, 0.25, 0.125])
    assert mirostat.candidates(probabilities, 2, 2.0).tolist() == [1, 2]
    assert mirostat.candidates(probabilities, 2, 3.0).tolist() == [0, 1, 2, 3]
    assert mirostat.candidates(probabilities, 2, 0.1).tolist() == [1]


def test_mode_1_keeps_more_the_larger_mu_is() -> None:
    zipf = 1.0 / np.arange(1, 1001)
    counts = [len(mirostat.candidates(zipf / zipf.sum(), 1, mu)) for mu in (-5.0, 5.0, 8.0, 900.0)]
    assert counts[0] == 1
    assert counts == sorted(set(counts))
    assert counts[-1] == 1000


@MODES
def test_mu_falls_after_a_surprise_and_rises_without_one(mode: int) -> None:
    certain = np.array([0.0, -1e9])
    assert mirostat.draw(certain, mode, tau=5.0, eta=0.1, mu=10.0, uniform=0.5) == (0, 10.5)
    token, mu = mirostat.draw(np.log(EVEN), mode, tau=1.0, eta=0.1, mu=10.0, uniform=0.99)
    assert token == 7
    assert mu == pytest.approx(9.8)


@MODES
@given(
    logits=LOGITS,
    mu=st.floats(-50.0, 2000.0),
    uniform=st.floats(0.0, 1.0, exclude_max=True),
)
def test_whatever_the_logits_a_possible_token_is_drawn(mode, logits, mu, uniform) -> None:
    token, next_mu = mirostat.draw(logits, mode, 5.0, 0.1, mu, uniform)
    assert 0 <= token < len(logits)
    assert math.exp(logits[token] - logits.max()) > 0.0
    assert math.isfinite(next_mu)


@MODES
def test_forbidden_tokens_are_never_drawn(mode: int) -> None:
    logits = np.array([-np.inf, 1.0, -np.inf, 0.5])
    drawn = {mirostat.draw(logits, mode, 5.0, 0.1, 10.0, u)[0] for u in np.linspace(0, 0.999, 50)}
    assert drawn == {1, 3}


@MODES
def test_the_mean_surprise_among_what_is_kept_is_the_target(mode: int) -> None:
    random = np.random.default_rng(3)
    sampling = Sampling(mirostat_mode=mode, mirostat_tau=3.0, mirostat_eta=0.1, seed=5)
    mus = [mirostat.first_mu(sampling)]
    for position in range(600):
        logits = 2.0 * random.standard_normal(2000)
        mus.append(mirostat.sample(logits, sampling, position, mus[-1])[1])
    surprises = 3.0 - np.diff(mus) / 0.1
    assert np.mean(surprises[100:]) == pytest.approx(3.0, abs=0.1)


def test_a_draw_depends_on_seed_position_and_mu_alone() -> None:
    logits = np.zeros(50)
    sampling = Sampling(mirostat_mode=2, seed=9)
    first = mirostat.sample(logits, sampling, 4, 10.0)
    assert mirostat.sample(logits, sampling, 4, 10.0) == first
    assert mirostat.sample(logits, sampling, 5, 10.0) != first


def test_a_tiny_temperature_draws_the_likeliest() -> None:
    sampling = Sampling(mirostat_mode=2, temperature=1e-30)
    assert mirostat.sample(np.array([1.0, 3.0, 2.0]), sampling, 0, 10.0)[0] == 1


def test_a_greedy_sequence_has_no_mirostat() -> None:
    assert mirostat.is_used(Sampling(mirostat_mode=1))
    assert not mirostat.is_used(Sampling(mirostat_mode=1, temperature=0.0))
    assert not mirostat.is_used(Sampling())
