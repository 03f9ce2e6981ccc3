"""From logits, after penalties and masks, to tokens: a function of arrays only.

On a GPU it is compiled, so that a step sends few kernels and little of Python's time. On a CPU that
takes the system's C++ compiler some seconds, and a step of milliseconds does not notice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from collections.abc import Sequence as ListLike
from dataclasses import dataclass

import mlx.core as mx

from jobs.contract.sampling import Sampling
from workers.engines import mirostat
from workers.engines.mlx.sampling.filters import (
    Filter,
    FilterSettings,
    apply_filters,
    column,
    exclude_top,
    heat,
)

_MOST_COMPILED = 64  # clients use few combinations of filters

Arrays = list[mx.array]
Parameters = tuple[Arrays, Arrays, Arrays]
"""Of the filters, of XTC (none: it does not act), of the temperature: (rows, 1) each."""
Choose = Callable[[mx.array, mx.array, mx.array, Parameters], mx.array]


@dataclass(frozen=True, slots=True)
class Chain:
    """What is done to the logits of a batch; the parameters of its rows are arguments."""

    filters: tuple[Filter, ...]
    num_candidates: int | None
    is_heated: bool
    """Whether a temperature is dynamic."""

    @staticmethod
    def of(samplings: ListLike[Sampling]) -> tuple[Chain, Arrays, Arrays]:
        """The chain for rows with ``samplings``, and its parameters but for XTC."""
        filters = filter_settings(samplings)
        # The value does not matter for a row that does not draw.
        middles = [s.temperature or 1.0 for s in samplings]
        extents = [s.dynatemp_range if is_drawing(s) else 0.0 for s in samplings]
        pairs = list(zip(middles, extents, strict=True))
        temperatures = [
            column([max(0.0, middle - extent) for middle, extent in pairs]),
            column([middle + extent for middle, extent in pairs]),
            column([s.dynatemp_exponent for s in samplings]),
        ]
        chain = Chain(filters.filters, filters.num_candidates, any(extents))
        return chain, filters.values, temperatures

    @property
    def waits(self) -> bool:
        """Whether a draw waits for the logits."""
        return any(one.waits for one in self.filters)

    def choose(
        self, logits: mx.array, keys: mx.array, is_greedy: mx.array, parameters: Parameters
    ) -> mx.array:
        """The tokens, (rows,): the likeliest, or drawn with the row's random key (rows, 2)."""
        drawn = _draw_rows(self.final(logits, parameters), keys)
        return mx.where(is_greedy, mx.argmax(logits, axis=-1), drawn)

    def final(self, logits: mx.array, parameters: Parameters) -> mx.array:
        """``logits`` (rows, vocab) after filters, XTC and temperature, as the draw uses them."""
        values, xtc, temperatures = parameters
        settings = FilterSettings(self.filters, values, self.num_candidates)
        kept = apply_filters(logits, settings)
        if xtc:
            kept = exclude_top(kept, *xtc)
        if self.is_heated:
            return heat(kept, *temperatures)
        # Shifted so that a tiny temperature cannot turn the maximum into infinity.
        return (kept - mx.max(kept, axis=-1, keepdims=True)) / temperatures[0]


@functools.lru_cache(maxsize=_MOST_COMPILED)
def choose_of(chain: Chain, *, is_compiled: bool) -> Choose:
    """``chain.choose``, compiled or not. One function for equal chains, of all batches."""
    return mx.compile(chain.choose) if is_compiled else chain.choose


def is_drawing(sampling: Sampling) -> bool:
    """Whether the row's token is drawn among what the filters leave."""
    return not sampling.is_greedy and not mirostat.is_used(sampling)


def filter_settings(samplings: ListLike[Sampling]) -> FilterSettings:
    """The filters of the rows; those of rows that do not draw are not used."""
    return FilterSettings.of([s if is_drawing(s) else None for s in samplings])


def _draw_rows(logits: mx.array, keys: mx.array) -> mx.array:
    """One draw per row, the same as ``mx.random.categorical`` of each row alone."""
    draw_one = mx.vmap(lambda row, key: mx.random.categorical(row, key=key))
    drawn: mx.array = draw_one(logits, keys)
    return drawn
