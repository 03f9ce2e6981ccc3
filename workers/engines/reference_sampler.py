"""Sampling in plain numpy: what every setting means, one row at a time, readable first.

The reference for the real engines' samplers, and the fake engine's own. Order and meaning:
``jobs.contract.sampling``; each filter keeps at least one token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from jobs.contract.sampling import Sampling, draw_seed
from workers.engines import dry
from workers.engines.dry import NO_BREAKERS, Breakers

Logits = npt.NDArray[np.float64]

IMPOSSIBLE = float(np.finfo(np.float32).min)
"""The logit of a candidate that cannot be drawn."""
TINY = 1e-30


def sample(
    logits: Logits, tokens: Sequence[int], sampling: Sampling, breakers: Breakers = NO_BREAKERS
) -> int:
    """The token after ``tokens`` (prompt + generated); ``logits``: shape (vocab_size,).

    ``breakers`` belong to ``sampling.dry_sequence_breakers``.
    """
    biased = disfavour(logits, tokens, sampling, breakers)
    if sampling.is_greedy:
        return int(np.argmax(biased))
    probabilities = softmax(heat(apply_filters(biased, sampling, len(tokens)), sampling))
    random = np.random.default_rng(draw_seed(sampling.seed, len(tokens)))
    return int(random.choice(len(probabilities), p=probabilities))


def disfavour(
    logits: Logits, tokens: Sequence[int], sampling: Sampling, breakers: Breakers = NO_BREAKERS
) -> Logits:
    """The logits after bias, penalties and DRY."""
    biased = penalise(add_bias(logits, sampling.logit_bias), tokens, sampling)
    return subtract(biased, dry.penalties(tokens, sampling, breakers))


def apply_filters(logits: Logits, sampling: Sampling, position: int) -> Logits:
    """All filters in their order, for the token at ``position``."""
    kept = keep_top_n_sigma(logits, sampling.top_n_sigma)
    kept = keep_top_k(kept, sampling.top_k)
    kept = keep_typical(kept, sampling.typical_p)
    kept = keep_top_p(kept, sampling.top_p)
    kept = keep_min_p(kept, sampling.min_p)
    return exclude_top(kept, sampling.xtc_threshold) if sampling.has_xtc_at(position) else kept


def add_bias(logits: Logits, bias: dict[int, float]) -> Logits:
    """The logits with each biased token's value added."""
    biased = logits.copy()
    for token_id, value in bias.items():
        biased[token_id] += value
    return biased


def penalise(logits: Logits, tokens: Sequence[int], sampling: Sampling) -> Logits:
    """Repetition divides a positive logit and multiplies a negative one; the others subtract."""
    if not sampling.has_penalties:
        return logits
    seen, counts = np.unique(tokens[-sampling.repetition_context_size :], return_counts=True)
    penalised = logits.copy()
    values = penalised[seen]
    repetition = sampling.repetition_penalty
    values = np.where(values > 0, values / repetition, values * repetition)
    values -= counts * sampling.frequency_penalty + sampling.presence_penalty
    penalised[seen] = values
    return penalised


def subtract(logits: Logits, penalties: Mapping[int, float]) -> Logits:
    """The logits with each token's penalty taken away."""
    return add_bias(logits, {token: -penalty for token, penalty in penalties.items()})


def keep_top_n_sigma(logits: Logits, num: float) -> Logits:
    """Tokens within ``num`` standard deviations of the likeliest's logit (0 or less: all).

    Tang et al. 2024, arXiv:2411.07641. As in llama.cpp, the others cannot be drawn, but ``heat``
    still counts them as candidates.
    """
    if num <= 0.0:
        return logits
    alive = logits > -np.inf
    lowest = logits.max() - num * logits[alive].std()
    return np.where(alive & (logits < lowest), IMPOSSIBLE, logits)


def keep_top_k(logits: Logits, top_k: int) -> Logits:
    """Only the ``top_k`` most likely; 0 keeps all."""
    if top_k <= 0 or top_k >= len(logits):
        return logits
    return _keep(logits, np.argsort(-logits, kind="stable")[:top_k])


def keep_typical(logits: Logits, typical_p: float) -> Logits:
    """The tokens whose surprise is closest to the entropy, up to mass ``typical_p`` (1: all).

    Meister et al. 2022, arXiv:2202.00666.
    """
    if typical_p >= 1.0:
        return logits
    probabilities = softmax(logits)
    with np.errstate(divide="ignore"):
        surprise = -np.log(probabilities)
    alive = probabilities > 0
    entropy = float(np.sum(probabilities[alive] * surprise[alive]))
    distance = np.where(alive, np.abs(surprise - entropy), np.inf)
    order = np.argsort(distance, kind="stable")
    return _keep(logits, order[: _prefix_of_mass(probabilities[order], typical_p)])


def keep_top_p(logits: Logits, top_p: float) -> Logits:
    """The smallest set of most likely tokens with mass ``top_p`` (1: all)."""
    if top_p >= 1.0:
        return logits
    probabilities = softmax(logits)
    order = np.argsort(-probabilities, kind="stable")
    return _keep(logits, order[: _prefix_of_mass(probabilities[order], top_p)])


def keep_min_p(logits: Logits, min_p: float) -> Logits:
    """Tokens at least ``min_p`` times as likely as the likeliest (0: all)."""
    if min_p <= 0.0:
        return logits
    probabilities = softmax(logits)
    return _keep(logits, np.flatnonzero(probabilities >= min_p * probabilities.max()))


def exclude_top(logits: Logits, threshold: float) -> Logits:
    """XTC: of the tokens with at least probability ``threshold`` keep only the least likely.

    By p-e-w, text-generation-webui pull request 6335.
    """
    probabilities = softmax(logits)
    order = np.argsort(-probabilities, kind="stable")
    num = np.count_nonzero((probabilities >= threshold) & (probabilities > 0.0))
    return _keep(logits, order[max(0, num - 1) :])


def heat(logits: Logits, sampling: Sampling) -> Logits:
    """The logits divided by the temperature; a dynamic one depends on the entropy.

    Dynamic temperature: arXiv:2309.02772.
    """
    # Shifted so that a tiny temperature cannot turn the maximum into infinity.
    shifted = logits - logits.max()
    num = np.count_nonzero(logits > -np.inf)
    if sampling.dynatemp_range == 0.0 or num < 2:
        return shifted / sampling.temperature
    probabilities = softmax(logits)
    entropy = -float(np.sum(probabilities * np.log(np.maximum(probabilities, TINY))))
    share = (entropy / np.log(num)) ** sampling.dynatemp_exponent
    lowest = max(0.0, sampling.temperature - sampling.dynatemp_range)
    highest = sampling.temperature + sampling.dynatemp_range
    return shifted / max(TINY, lowest + (highest - lowest) * share)


def softmax(logits: Logits) -> Logits:
    """Probabilities that sum to 1."""
    exps = np.exp(logits - logits.max())
    result: Logits = exps / exps.sum()
    return result


def log_softmax(logits: Logits) -> Logits:
    """Natural logarithms of the probabilities."""
    shifted = logits - logits.max()
    result: Logits = shifted - np.log(np.exp(shifted).sum())
    return result


def top_logprobs(logprobs: Logits, count: int) -> tuple[tuple[int, float], ...]:
    """The ``count`` most likely (token id, log-probability), most likely first."""
    order = np.argsort(-logprobs, kind="stable")[:count]
    return tuple((int(token_id), float(logprobs[token_id])) for token_id in order)


def _prefix_of_mass(sorted_probabilities: Logits, mass: float) -> int:
    return int(np.searchsorted(np.cumsum(sorted_probabilities), mass)) + 1


def _keep(logits: Logits, token_ids: npt.NDArray[np.intp]) -> Logits:
    kept = np.full_like(logits, -np.inf)
    kept[token_ids] = logits[token_ids]
    return kept
