"""The filters between penalties and draw, for all rows of a batch at once.

``ranked`` is (rows, vocab) float32: logits in descending order. A filter sets what it drops to
-inf and never drops the last candidate. Parameters are (rows, 1). The meaning of each filter,
down to ``>=`` or ``>``, is that of llama.cpp's sampler of the same name.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

DROPPED = float("-inf")


@dataclass(frozen=True, slots=True)
class FilterSettings:
    """Filter parameters of the rows, (rows, 1) each, and which filters any row uses at all."""

    top_k: mx.array
    typical_p: mx.array
    top_p: mx.array
    min_p: mx.array
    has_top_k: bool
    has_typical_p: bool
    has_top_p: bool
    has_min_p: bool

    @property
    def needs_ranking(self) -> bool:
        return self.has_top_k or self.has_typical_p or self.has_top_p


def apply_filters(logits: mx.array, settings: FilterSettings) -> mx.array:
    """``logits`` (rows, vocab) with everything that a row's filters drop at -inf.

    The result stays in token order, so that the random number of a token depends neither on the
    other filters nor on the company in the batch.
    """
    if settings.needs_ranking:
        order = mx.argsort(-logits, axis=-1)
        ranked = _filter_ranked(mx.take_along_axis(logits, order, axis=-1), settings)
        logits = mx.put_along_axis(logits, order, ranked, axis=-1)
    return keep_min_p(logits, settings.min_p) if settings.has_min_p else logits


def _filter_ranked(ranked: mx.array, settings: FilterSettings) -> mx.array:
    if settings.has_top_k:
        ranked = keep_top_k(ranked, settings.top_k)
    if settings.has_typical_p:
        ranked = keep_typical(ranked, settings.typical_p)
    if settings.has_top_p:
        ranked = keep_top_p(ranked, settings.top_p)
    return ranked


def keep_top_k(ranked: mx.array, top_k: mx.array) -> mx.array:
    """Keep the ``top_k`` most likely; the vocabulary's size keeps all."""
    return _keep(ranked, mx.arange(ranked.shape[-1]) < top_k)


def keep_top_p(ranked: mx.array, top_p: mx.array) -> mx.array:
    """Keep the smallest set of most likely tokens whose probability reaches ``top_p``."""
    probabilities = mx.softmax(ranked, axis=-1)
    before = mx.cumsum(probabilities, axis=-1) - probabilities
    is_first = before <= 0.0
    return _keep(ranked, (before < top_p) | is_first | (top_p >= 1.0))


def keep_typical(ranked: mx.array, typical_p: mx.array) -> mx.array:
    """Keep the tokens of most typical surprise until their probability exceeds ``typical_p``.

    Locally typical sampling, Meister et al. 2022 (arXiv 2202.00666).
    """
    probabilities = mx.softmax(ranked, axis=-1)
    surprise = mx.where(probabilities > 0.0, -mx.log(probabilities), 0.0)
    entropy = mx.sum(probabilities * surprise, axis=-1, keepdims=True)
    oddness = mx.where(probabilities > 0.0, mx.abs(surprise - entropy), float("inf"))
    order = mx.argsort(oddness, axis=-1)
    typical = mx.take_along_axis(probabilities, order, axis=-1)
    before = mx.cumsum(typical, axis=-1) - typical
    is_kept = (before <= typical_p) | (typical_p >= 1.0)
    return _keep(ranked, mx.put_along_axis(is_kept, order, is_kept, axis=-1))


def keep_min_p(logits: mx.array, min_p: mx.array) -> mx.array:
    """Keep tokens at least ``min_p`` times as likely as the most likely; in any order."""
    return _keep(logits, logits >= mx.max(logits, axis=-1, keepdims=True) + mx.log(min_p))


def _keep(logits: mx.array, is_kept: mx.array) -> mx.array:
    return mx.where(is_kept, logits, DROPPED)
