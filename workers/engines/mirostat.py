"""Mirostat: sampling that steers the surprise of the text towards a target, in plain numpy.

It stands in place of the filters, after bias, penalties and temperature. Its state is one number,
``mu``, the largest surprise allowed, in bits; it changes with each token. Basu et al. 2021,
arXiv:2007.14966; in detail (estimate from 100 tokens, surprise measured after the cut) as
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
    """Whether the draws are mirostat's; a greedy sequence has none."""
    return sampling.mirostat_mode != 0 and not sampling.is_greedy


def first_mu(sampling: Sampling) -> float:
    """``mu`` before the first token."""
    return 2.0 * sampling.mirostat_tau


def sample(logits: Floats, sampling: Sampling, position: int, mu: float) -> tuple[int, float]:
    """The token at index ``position`` of its sequence, and the next ``mu``.

    ``logits`` (vocab_size,) have bias and penalties applied, not the temperature.
    """
    # Shifted so that a tiny temperature cannot turn the maximum into infinity.
    heated = (logits - logits.max()) / sampling.temperature
    mode, tau, eta = sampling.mirostat_mode, sampling.mirostat_tau, sampling.mirostat_eta
    return draw(heated, mode, tau, eta, mu, uniform(sampling.seed, position))


def uniform(seed: int, position: int) -> float:
    """The random number in [0, 1) of the draw at ``position``."""
    return float(np.random.default_rng(draw_seed(seed, position)).random())


def draw(
    logits: Floats, mode: int, tau: float, eta: float, mu: float, uniform: float
) -> tuple[int, float]:
    """A token and the next ``mu``, from final ``logits`` (vocab_size,) and a number in [0, 1).

    Candidates stay in token order, so that the draw does not hang on ties in their rank.
    """
    probabilities = _softmax(logits)
    kept = candidates(probabilities, mode, mu)
    shares = probabilities[kept] / probabilities[kept].sum()
    # Rounding can leave the sum of all shares below the number drawn.
    place = min(int(np.searchsorted(np.cumsum(shares), uniform, side="right")), len(kept) - 1)
    surprise = -math.log2(shares[place])
    return int(kept[place]), mu - eta * (surprise - tau)


def candidates(probabilities: Floats, mode: int, mu: float) -> npt.NDArray[np.intp]:
    """The tokens that can be drawn, in ascending order; at least one."""
    return _within_rank(probabilities, mu) if mode == 1 else _within_surprise(probabilities, mu)


def _softmax(logits: Floats) -> Floats:
    exps = np.exp(logits - logits.max())
    result: Floats = exps / exps.sum()
    return result


def _within_surprise(probabilities: Floats, mu: float) -> npt.NDArray[np.intp]:
    """Mode 2: tokens with a surprise of at most ``mu``, or the likeliest."""
    with np.errstate(divide="ignore"):
        kept = np.flatnonzero((-np.log2(probabilities) <= mu) & (probabilities > 0.0))
    return kept if len(kept) > 0 else np.array([np.argmax(probabilities)])


def _within_rank(probabilities: Floats, mu: float) -> npt.NDArray[np.intp]:
    """Mode 1: as many of the likeliest as Zipf's law gives a surprise of ``mu``."""
    alive = np.flatnonzero(probabilities)
    num = _rank_of(mu, _zipf_exponent(probabilities[alive]), len(probabilities))
    if num >= len(alive):
        return alive
    likeliest = np.argpartition(-probabilities[alive], num - 1)[:num]
    return np.sort(alive[likeliest])


def _zipf_exponent(probabilities: Floats) -> float:
    """Least squares over the ``_NUM_RANKED`` likeliest; ``probabilities`` are above 0."""
    num = min(_NUM_RANKED, len(probabilities))
    if num < 2:
        return 1.0
    ranked = -np.sort(np.partition(-probabilities, num - 1)[:num])
    steps = np.log(np.arange(2, num + 1) / np.arange(1, num))
    falls = np.log(ranked[:-1] / ranked[1:])
    return float((steps * falls).sum() / (steps * steps).sum())


def _rank_of(mu: float, exponent: float, vocab_size: int) -> int:
    """k = (eps 2^mu / (1 - N^-eps))^(1/s) with eps = s - 1, at least 1 and at most N.

    In logarithms, because 2^mu and the power overflow; with its limits at eps = 0 and s = 0.
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
