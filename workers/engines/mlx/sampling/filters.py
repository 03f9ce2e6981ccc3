"""The filters between penalties and draw, for all rows of a batch at once.

``ranked`` is (rows, vocab) float32: logits in descending order. A filter sets what it drops to
-inf and never drops the last candidate. Parameters are (rows, 1). The meaning of each filter,
down to ``>=`` or ``>``, is that of llama.cpp's sampler of the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as ListLike
from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np

from jobs.contract.sampling import Sampling
from workers.engines.mlx import device
from workers.engines.mlx.sampling import host_filters

DROPPED = float("-inf")
_IMPOSSIBLE = float(np.finfo(np.float32).min)  # a candidate that cannot be drawn
_ALL = float("inf")
_TINY = 1e-30
# Sorting 150,000 logits takes 54 ms a row on a CPU; finding the likeliest few takes 6 ms.
_MOST_CANDIDATES = 1024
_FEWEST_CANDIDATES = 64


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter. ``value`` gets a row's parameter; ``neutral`` is the one that keeps all."""

    value: Callable[[Sampling], float]
    neutral: float
    keep: Callable[[mx.array, mx.array], mx.array]
    is_ranked: bool = False  # needs the likeliest first; others do not mind the order
    waits: bool = False  # for the logits; then it cannot be compiled


@dataclass(frozen=True, slots=True)
class FilterSettings:
    """The filters that any row uses, in their order, each with the rows' parameters, (rows, 1).

    No row keeps more than ``num_candidates`` tokens; ``None``: there is no such bound.
    """

    filters: tuple[Filter, ...]
    values: list[mx.array]
    num_candidates: int | None = None

    @staticmethod
    def of(samplings: ListLike[Sampling | None]) -> FilterSettings:
        """The filters that the rows use; ``None`` stands for a row without filters."""
        used = {}
        for one in _FILTERS:
            values = [one.neutral if s is None else one.value(s) for s in samplings]
            if any(value != one.neutral for value in values):
                used[one] = column(values)
        num_candidates = _num_candidates(samplings)
        filters = tuple(used)
        if num_candidates is None and not device.is_gpu():
            filters = _without_ranking(filters, samplings)
        return FilterSettings(filters, list(used.values()), num_candidates)


def _num_candidates(samplings: ListLike[Sampling | None]) -> int | None:
    """A bound for all rows that draw; a power of two, so that few chains are compiled."""
    top_ks = [s.top_k for s in samplings if s is not None]
    if not top_ks or min(top_ks) < 1 or max(top_ks) > _MOST_CANDIDATES:
        return None
    return max(_FEWEST_CANDIDATES, 1 << (max(top_ks) - 1).bit_length())


def _without_ranking(
    filters: tuple[Filter, ...], samplings: ListLike[Sampling | None]
) -> tuple[Filter, ...]:
    """The same filters, with those of the host in place of those that need all tokens ranked."""
    is_possible = _TYPICAL not in filters and all(
        s is None or s.top_k <= host_filters.MOST_BY_RANK for s in samplings
    )
    return tuple(_ON_HOST.get(one, one) for one in filters) if is_possible else filters


def column(values: ListLike[float]) -> mx.array:
    """One value per row, (rows, 1)."""
    return mx.array(list(values), dtype=mx.float32)[:, None]


def apply_filters(logits: mx.array, settings: FilterSettings) -> mx.array:
    """``logits`` (rows, vocab) with everything that a row's filters drop at -inf.

    The result stays in token order, so that the random number of a token depends neither on the
    other filters nor on the company in the batch.
    """
    order, found = None, logits
    for one, values in zip(settings.filters, settings.values, strict=True):
        if one.is_ranked and order is None:
            order = _ranking(found, settings.num_candidates)
            found = mx.take_along_axis(found, order, axis=-1)
        found = one.keep(found, values)
    if order is None:
        return found
    return mx.put_along_axis(mx.full(logits.shape, DROPPED), order, found, axis=-1)


def _ranking(logits: mx.array, num: int | None) -> mx.array:
    """Ids of the ``num`` likeliest tokens (``None``: of all), the likeliest first.

    Of equal ones the lower id is first, so that a row's candidates do not depend on ``num``.
    """
    if num is None or num >= logits.shape[-1]:
        return mx.argsort(-logits, axis=-1)
    # One key per token: an integer in the order of the logits above, the id below.
    bits = mx.view(logits + 0.0, mx.int32)  # plus zero: -0.0 is equal to 0.0
    ordered = mx.where(bits < 0, bits ^ 0x7FFFFFFF, bits).astype(mx.int64)
    keys = mx.arange(logits.shape[-1], dtype=mx.int64) - ordered * mx.array(1 << 32, mx.int64)
    found = mx.sort(mx.partition(keys, num, axis=-1)[:, :num], axis=-1)
    return found & mx.array((1 << 32) - 1, mx.int64)


def keep_top_n_sigma(logits: mx.array, num: mx.array) -> mx.array:
    """Keep tokens within ``num`` standard deviations of the likeliest's logit; in any order.

    Tang et al. 2024 (arXiv 2411.07641). The others still count as candidates (``heat``).
    """
    is_alive = logits > DROPPED
    count = mx.sum(is_alive, axis=-1, keepdims=True)
    values = mx.where(is_alive, logits, 0.0)
    mean = mx.sum(values, axis=-1, keepdims=True) / count
    squares = mx.where(is_alive, (logits - mean) ** 2, 0.0)
    deviation = mx.sqrt(mx.sum(squares, axis=-1, keepdims=True) / count)
    lowest = mx.max(logits, axis=-1, keepdims=True) - num * deviation
    is_kept = (logits >= lowest) | ~is_alive | mx.isinf(num)
    return mx.where(is_kept, logits, _IMPOSSIBLE)


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


def exclude_top(logits: mx.array, threshold: mx.array) -> mx.array:
    """XTC: of the tokens with at least probability ``threshold`` keep only the least likely."""
    probabilities = mx.softmax(logits, axis=-1)
    is_top = (probabilities >= threshold) & (probabilities > 0.0)
    lowest = mx.min(mx.where(is_top, probabilities, _ALL), axis=-1, keepdims=True)
    places = mx.arange(logits.shape[-1])
    last = mx.max(mx.where(is_top & (probabilities <= lowest), places, -1), axis=-1, keepdims=True)
    return _keep(logits, ~is_top | (places == last))


def heat(logits: mx.array, low: mx.array, high: mx.array, exponent: mx.array) -> mx.array:
    """Divide by a temperature from ``low`` to ``high``, by the entropy of the candidates.

    Dynamic temperature, arXiv 2309.02772. If both are equal, it is a fixed temperature.
    """
    # Shifted so that a tiny temperature cannot turn the maximum into infinity.
    shifted = logits - mx.max(logits, axis=-1, keepdims=True)
    probabilities = mx.softmax(logits, axis=-1)
    surprise = mx.where(probabilities > 0.0, -mx.log(probabilities), 0.0)
    entropy = mx.sum(probabilities * surprise, axis=-1, keepdims=True)
    num = mx.sum(logits > DROPPED, axis=-1, keepdims=True)
    share = entropy / mx.log(mx.maximum(num, 2))
    return shifted / mx.maximum(low + (high - low) * share**exponent, _TINY)


def _keep(logits: mx.array, is_kept: mx.array) -> mx.array:
    return mx.where(is_kept, logits, DROPPED)


_TOP_K = Filter(lambda s: s.top_k or _ALL, _ALL, keep_top_k, is_ranked=True)
_TYPICAL = Filter(lambda s: s.typical_p, 1.0, keep_typical, is_ranked=True)
_TOP_P = Filter(lambda s: s.top_p, 1.0, keep_top_p, is_ranked=True)
_FILTERS = (
    Filter(lambda s: s.top_n_sigma if s.top_n_sigma > 0.0 else _ALL, _ALL, keep_top_n_sigma),
    _TOP_K,
    _TYPICAL,
    _TOP_P,
    Filter(lambda s: s.min_p, 0.0, keep_min_p),
)
_ON_HOST = {
    _TOP_K: replace(_TOP_K, keep=host_filters.keep_top_k, is_ranked=False, waits=True),
    _TOP_P: replace(_TOP_P, keep=host_filters.keep_top_p, is_ranked=False, waits=True),
}
