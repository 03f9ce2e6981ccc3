"""Operations on the KV cache of one sequence: what can be kept, copies of prefixes, trimming.

MLX writes an array in place only if nothing else uses its buffer. So a copy made here is free
until one of the two sequences continues, and then only the copied part is written again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, cast

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models import cache as mlx_cache  # type: ignore[import-untyped, unused-ignore]

from workers.engines.mlx.library import LayerCache, PromptCache

_GROWING = (mlx_cache.KVCache, mlx_cache.QuantizedKVCache)
_KEPT = (*_GROWING, mlx_cache.RotatingKVCache, mlx_cache.ArraysCache)


def can_keep(cache: PromptCache) -> bool:
    """Whether this module can copy such caches."""
    return all(type(layer) in _KEPT for layer in _leaves(cache))


def can_always_trim(cache: PromptCache) -> bool:
    """Whether it can be trimmed at any length: no sliding window and no recurrent state."""
    return all(type(layer) in _GROWING for layer in _leaves(cache))


def can_trim(cache: PromptCache) -> bool:
    """Whether ``cache`` can be cut to any prefix now; also works for the cache of a batch."""
    return all(layer.is_trimmable() for layer in _leaves(cache))


def can_trim_after(cache: PromptCache, num_tokens: int) -> bool:
    """``can_trim`` as it will be with ``num_tokens`` more in the cache."""

    def can_trim_layer(layer: Any) -> bool:
        if isinstance(layer, mlx_cache.RotatingKVCache):
            return bool(layer.offset + num_tokens < layer.max_size)
        return isinstance(layer, _GROWING)

    return all(map(can_trim_layer, _leaves(cache)))


def prefix(cache: PromptCache, num_tokens: int) -> PromptCache:
    """A copy of the state after the first ``num_tokens``, all of them unless ``can_trim``."""
    return [_prefix(layer, num_tokens) for layer in cache]


def snapshot(cache: PromptCache, num_tokens: int) -> PromptCache:
    """As ``prefix``, for a running sequence: copies the memory at once.

    A lazy copy would share the running sequence's buffers, and each of its steps would copy them.
    """
    taken = prefix(cache, num_tokens)
    for layer in _leaves(taken):
        layer.state = tree_map(_contiguous, layer.state)
    mx.eval(arrays(taken))
    return taken


def row(batch: PromptCache, index: int) -> PromptCache:
    """A copy of one row of a batch's cache, as the cache of a single sequence."""
    return [cast(Any, layer).extract(index) for layer in batch]


def cut(cache: PromptCache, num_tokens: int) -> None:
    """Trim in place to the first ``num_tokens``; only if ``can_trim``."""
    for layer in cast(list[Any], cache):
        layer.trim(layer.offset - num_tokens)


def trim(cache: PromptCache, num_tokens: int) -> None:
    """Remove the last ``num_tokens`` in place; only if ``can_trim``."""
    for layer in cache:
        cast(Any, layer).trim(num_tokens)


def arrays(cache: PromptCache) -> list[mx.array]:
    """The arrays of all layers."""
    states = tree_flatten([layer.state for layer in cache])
    return [leaf for _, leaf in states if isinstance(leaf, mx.array)]


def num_bytes(cache: PromptCache) -> int:
    """Memory of the cache, including allocated space for more tokens."""
    return sum(int(array.nbytes) for array in arrays(cache))


def layer_of(name: str, state: Any) -> LayerCache:
    """A layer cache of the class ``name`` with ``state``; ``ValueError`` for an unknown class."""
    for kind in (*_KEPT, mlx_cache.CacheList):
        if kind.__name__ == name:
            return cast(LayerCache, kind.from_state(state))
    raise ValueError(f"there is no cache layer {name!r}")


def _leaves(cache: PromptCache) -> Iterator[Any]:
    for layer in cache:
        if isinstance(layer, mlx_cache.CacheList):
            yield from _leaves(list(layer.caches))
        else:
            yield layer


def _prefix(layer: Any, num_tokens: int) -> Any:
    if isinstance(layer, mlx_cache.CacheList):
        return mlx_cache.CacheList(*(_prefix(inner, num_tokens) for inner in layer.caches))
    # Copy the Python objects too: assigning to a slice of an MLX array changes the object itself.
    copied = copy.deepcopy(layer)
    if layer.empty() or isinstance(layer, mlx_cache.ArraysCache):
        return copied
    copied.trim(layer.offset - num_tokens)
    if isinstance(layer, _GROWING) or layer.offset > num_tokens:
        _shrink(copied, num_tokens)
    return copied


def _contiguous(leaf: Any) -> Any:
    return mx.contiguous(leaf) if isinstance(leaf, mx.array) else leaf


def _shrink(layer: Any, num_tokens: int) -> None:
    """Drop the allocated space behind the tokens, which the first write would copy too."""
    layer.keys, layer.values = tree_map(
        lambda array: array[..., :num_tokens, :], (layer.keys, layer.values)
    )
    if isinstance(layer, mlx_cache.QuantizedKVCache):
        layer.keys, layer.values = list(layer.keys), list(layer.values)
