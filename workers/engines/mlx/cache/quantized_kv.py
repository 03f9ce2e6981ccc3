"""Quantizes a model's KV cache to 4 or 8 bits: less memory for long contexts, but one slot."""

from __future__ import annotations

from typing import Any, cast

import mlx.core as mx
from mlx_lm.models import cache as mlx_cache  # type: ignore[import-untyped, unused-ignore]

from jobs.contract.errors import InvalidRequestError
from workers.engines.mlx import library
from workers.engines.mlx.library import Model, PromptCache

FIELD = "kv_bits"
_ALLOWED_BITS = (4, 8)
_GROUP_SIZES = (64, 32)  # number of values that share a scale; must divide the size of a head


def check_kv_bits(kv_bits: int, num_slots: int | None) -> None:
    """Raise ``InvalidRequestError`` for impossible values, before anything is loaded."""
    if kv_bits not in _ALLOWED_BITS:
        raise InvalidRequestError(f"{FIELD} must be 4 or 8, not {kv_bits}", FIELD)
    if num_slots is not None and num_slots > 1:
        message = f"{FIELD} allows only one slot, not {num_slots}: it cannot be batched"
        raise InvalidRequestError(message, FIELD)


class QuantizedKVModel:
    """Wraps a model so that its growing KV caches are quantized.

    Sliding windows and recurrent states do not grow and stay as they are.
    """

    def __init__(self, model: Model, bits: int) -> None:
        self._model = model
        self._bits = bits
        self._group_size = _group_size(model)
        self._try()

    def __call__(self, tokens: mx.array, cache: PromptCache) -> mx.array:
        return self._model(tokens, cache=cache)

    def make_cache(self) -> list[Any]:
        """Called by mlx_lm's ``make_prompt_cache``."""
        return [self._quantized(layer) for layer in library.new_cache(self._model)]

    def _quantized(self, layer: Any) -> Any:
        if type(layer) is not mlx_cache.KVCache:
            return layer
        return mlx_cache.QuantizedKVCache(group_size=self._group_size, bits=self._bits)

    def _try(self) -> None:
        """Build the graph for one token, without computing it: unsuitable models raise then."""
        try:
            self(mx.zeros((1, 1), dtype=mx.uint32), self.make_cache())
        except Exception as error:  # a model's own code raises anything
            raise InvalidRequestError(
                f"this model's KV cache cannot be quantized: {error}", FIELD
            ) from error


def _group_size(model: Model) -> int:
    """The largest group size that divides the keys and values of every growing layer."""
    cache = library.new_cache(model)
    growing = [layer for layer in cast(list[Any], cache) if type(layer) is mlx_cache.KVCache]
    if not growing:
        raise InvalidRequestError("this model has no KV cache that grows with the text", FIELD)
    model(mx.zeros((1, 1), dtype=mx.uint32), cache=cache)  # only for the shapes; not computed
    used = [layer for layer in growing if not layer.empty()]
    sizes = {array.shape[-1] for layer in used for array in (layer.keys, layer.values)}
    for group_size in _GROUP_SIZES:
        if all(size % group_size == 0 for size in sizes):
            return group_size
    raise InvalidRequestError(f"heads of {sorted(sizes)} values cannot be quantized", FIELD)
