"""Mirostat: sampling that keeps the surprise of the text near a target, in plain numpy.

It replaces the filters and comes after bias, penalties and temperature. Its state is one number,
``mu``, the largest surprise allowed, in bits; each token changes it. Source: Basu et al. 2021,
arXiv:2007.14966. Details (exponent from 100 tokens, surprise measured after the cut) follow
llama.cpp's ``mirostat`` and ``mirostat_v2`` samplers.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from jobs.contract.sampling import Sampling, draw_seed

_NUM_RANKED = 100  # tokens from which mode 1 estimates the exponent of Zipf's law

Floats = npt.NDArray[np.float64]


def is_used(sampling: Sampling) -> bool:
    """Whether mirostat samples the tokens; never for greedy sampling."""
    return sampling.mirostat_mode != 0 and not sampling.is_greedy


def first_mu(sampling: Sampling) -> float:
    """The initial ``mu``."""
    return 2.0 * sampling.mirostat_tau


def sample(logits: Floats, sampling: Sampling, position: int, mu: float) -> tuple[int, float]:
    """Sample the token at index ``position`` of its sequence; returns it and the next ``mu``.

    ``logits`` (vocab_size,) have bias and penalties applied, but not the temperature.
    """
    # Shifted so that a tiny temperature cannot turn the maximum into infinity.
    heated = (logits - logits.max()) / sampling.temperature
    mode, tau, eta = sampling.mirostat_mode, sampling.mirostat_tau, sampling.mirostat_eta
    return draw(heated, mode, tau, eta, mu, uniform(sampling.seed, position))


def uniform(seed: int, position: int) -> float:
    """The random number in [0, 1) for the token at ``position``."""
    return float(np.random.default_rng(draw_seed(seed, position)).random())


def draw(
    logits: Floats, mode: int, tau: float, eta: float, mu: float, uniform: float
) -> tuple[int, float]:
    """Sample from final ``logits`` (vocab_size,) with a random number in [0, 1).

    Returns the token and the next ``mu``. Candidates stay in token order, so that tokens of equal
    probability cannot change the result.
    """
    probabilities = _softmax(logits)
    kept = candidates(probabilities, mode, mu)
    shares = probabilities[kept] / probabilities[kept].sum()
    # Due to rounding, the sum of all shares can be below the random number.
    place = min(int(np.searchsorted(np.cumsum(shares), uniform, side="right")), len(kept) - 1)
    surprise = -math.log2(shares[place])
    return int(kept[place]), mu - eta * (surprise - tau)


def candidates(probabilities: Floats, mode: int, mu: float) -> npt.NDArray[np.intp]:
    """Ids of the tokens that can be sampled, in ascending order; at least one."""
    return _within_rank(probabilities, mu) if mode == 1 else _within_surprise(probabilities, mu)


def _softmax(logits: Floats) -> Floats:
    exps = np.exp(logits - logits.max())
    result: Floats = exps / exps.sum()
    return result


def _within_surprise(probabilities: Floats, mu: float) -> npt.NDArray[np.intp]:
    """Mode 2: tokens with a surprise of at most ``mu``; if there are none, the likeliest."""
    with np.errstate(divide="ignore"):
        kept = np.flatnonzero((-np.log2(probabilities) <= mu) & (probabilities > 0.0))
    return kept if len(kept) > 0 else np.array([np.argmax(probabilities)])


def _within_rank(probabilities: Floats, mu: float) -> npt.NDArray[np.intp]:
    """Mode 1: the likeliest tokens, as many as Zipf's law gives for a surprise of ``mu``."""
    alive = np.flatnonzero(probabilities)
    num = _rank_of(mu, _zipf_exponent(probabilities[alive]), len(probabilities))
    if num >= len(alive):
        return alive
    likeliest = np.argpartition(-probabilities[alive], num - 1)[:num]
    return np.sort(alive[likeliest])


def _zipf_exponent(probabilities: Floats) -> float:
    """Least-squares estimate from the ``_NUM_RANKED`` likeliest; all ``probabilities`` are > 0."""
    num = min(_NUM_RANKED, len(probabilities))
    if num < 2:
        return 1.0
    ranked = -np.sort(np.partition(-probabilities, num - 1)[:num])
    steps = np.log(np.arange(2, num + 1) / np.arange(1, num))
    falls = np.log(ranked[:-1] / ranked[1:])
    return float((steps * falls).sum() / (steps * steps).sum())


def _rank_of(mu: float, exponent: float, vocab_size: int) -> int:
    """k = (eps 2^mu / (1 - N^-eps))^(1/s) with eps = s - 1, limited to 1 to N.

    Computed in logarithms, because 2^mu and the power overflow; eps = 0 and s = 0 use the limits.
    """
    epsilon = exponent - 1.0
    log_size = math.log(vocab_size)
    if abs(epsilon * log_size) < 1e-9:
        log_factor = -math.log(log_size) if log_size > 0.0 else 0.0
    else:
        # -expm1 and epsilon have the same sign. N^-eps cannot overflow: eps is at least -1.
        log_factor = math.log(epsilon / -math.expm1(-epsilon * log_size))
    log_power = mu * math.log(2.0) + log_factor
    log_rank = log_power / exponent if exponent > 0.0 else math.copysign(math.inf, log_power)
    return max(1, int(math.exp(min(log_rank, log_size) + 1e-9)))
