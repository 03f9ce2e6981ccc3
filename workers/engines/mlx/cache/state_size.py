"""How much memory a sequence's KV state takes, by its length: planned on the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from workers.engines.mlx import library
from workers.engines.mlx.cache import kv
from workers.engines.mlx.library import Model

_UNIT = 256  # tokens by which mlx_lm's caches grow
_LARGEST_CHUNK = 2048  # a window may hold that many tokens more while a prompt is read


@dataclass(frozen=True, slots=True)
class _Layer:
    """``unit_bytes`` per 256 tokens, up to ``max_tokens`` if the layer has a window."""

    fixed_bytes: int
    unit_bytes: int
    max_tokens: int | None

    def bytes_for(self, num_tokens: int) -> int:
        if self.max_tokens is not None:
            num_tokens = min(num_tokens, self.max_tokens + _LARGEST_CHUNK)
        # Space is allocated ahead from whatever length the state has then.
        return self.fixed_bytes + self.unit_bytes * (num_tokens + _UNIT - 1) // _UNIT


@dataclass(frozen=True, slots=True)
class StateSize:
    """``can_trim``: a state can be cut to any prefix, so that a running one needs no copy."""

    layers: tuple[_Layer, ...]
    can_trim: bool

    def bytes_for(self, num_tokens: int) -> int:
        """Memory of a state of ``num_tokens``, with the space that is allocated ahead."""
        return sum(layer.bytes_for(num_tokens) for layer in self.layers)


def measure_state(model: Model) -> StateSize:
    """Plan two passes of 256 tokens; only the shapes of their states are used.

    Best before the CPU tuning, which computes some parts at once.
    """
    cache = library.new_cache(model)
    sizes = []
    for _ in range(2):
        model(mx.zeros((1, _UNIT), dtype=mx.uint32), cache=cache)
        sizes.append([kv.num_bytes([layer]) for layer in kv.leaves(cache)])
    layers = [
        _layer(layer, before, after)
        for layer, before, after in zip(kv.leaves(cache), *sizes, strict=True)
    ]
    return StateSize(tuple(layers), kv.can_always_trim(library.new_cache(model)))


def _layer(layer: Any, before: int, after: int) -> _Layer:
    grown = max(after - before, 0)
    return _Layer(max(before - grown, 0), grown, kv.max_tokens(layer))
