"""Sampling in plain numpy: what every setting means, one row at a time, readable first.

The reference for the real engines' samplers, and the fake engine's own. Order and meaning:
``jobs.contract.sampling``; each filter keeps at least one token.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from jobs.contract.sampling import Sampling, draw_seed

Logits = npt.NDArray[np.float64]


def sample(logits: Logits, tokens: Sequence[int], sampling: Sampling) -> int:
    """The token after ``tokens`` (prompt + generated); ``logits``: shape (vocab_size,)."""
    biased = penalise(add_bias(logits, sampling.logit_bias), tokens, sampling)
    if sampling.is_greedy:
        return int(np.argmax(biased))
    kept = keep_min_p(
        keep_top_p(
            keep_typical(keep_top_k(biased, sampling.top_k), sampling.typical_p), sampling.top_p
        ),
        sampling.min_p,
    )
    probabilities = softmax(kept / sampling.temperature)
    random = np.random.default_rng(draw_seed(sampling.seed, len(tokens)))
    return int(random.choice(len(probabilities), p=probabilities))


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
