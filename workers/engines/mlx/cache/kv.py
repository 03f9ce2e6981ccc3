"""The KV state of one sequence as a value: what of it can be kept, and copies of its beginning.

An MLX array is written in place only while nobody else holds its buffer. So a copy made here
costs nothing until one of the two sequences goes on, and then only its own part is copied.
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
    """Whether this package knows how to copy such caches at all."""
    return all(type(layer) in _KEPT for layer in _leaves(cache))


def grows(cache: PromptCache) -> bool:
    """Whether tokens can be taken back at any time: nothing in it is a window or a state."""
    return all(type(layer) in _GROWING for layer in _leaves(cache))


def can_trim(cache: PromptCache) -> bool:
    """Whether every beginning of the sequence can be had from its ``cache``, or only the whole.

    Also answers for the cache of a batch.
    """
    return all(layer.is_trimmable() for layer in _leaves(cache))


def can_trim_after(cache: PromptCache, num_tokens: int) -> bool:
    """Whether that will be so when so many more are in it."""

    def is_so(layer: Any) -> bool:
        if isinstance(layer, mlx_cache.RotatingKVCache):
            return bool(layer.offset + num_tokens < layer.max_size)
        return isinstance(layer, _GROWING)

    return all(map(is_so, _leaves(cache)))


def prefix(cache: PromptCache, num_tokens: int) -> PromptCache:
    """The state after the first ``num_tokens`` of the sequence: all, unless ``can_trim``."""
    return [_prefix(layer, num_tokens) for layer in cache]


def snapshot(cache: PromptCache, num_tokens: int) -> PromptCache:
    """As ``prefix``, for a sequence that goes on: computed at once, into memory of its own.

    A copy that waits would hold the other's buffers, and each of its steps would copy them whole.
    """
    taken = prefix(cache, num_tokens)
    for layer in _leaves(taken):
        layer.state = tree_map(_contiguous, layer.state)
    mx.eval(arrays(taken))
    return taken


def row(batch: PromptCache, index: int) -> PromptCache:
    """A copy of one row of a batch's cache, as the cache of a sequence of its own."""
    return [cast(Any, layer).extract(index) for layer in batch]


def cut(cache: PromptCache, num_tokens: int) -> None:
    """As ``prefix``, in place: the rest is lost; only if ``can_trim``."""
    for layer in cast(list[Any], cache):
        layer.trim(layer.offset - num_tokens)


def trim(cache: PromptCache, num_tokens: int) -> None:
    """Take the last ``num_tokens`` back, in place; only if ``can_trim``."""
    for layer in cache:
        cast(Any, layer).trim(num_tokens)


def arrays(cache: PromptCache) -> list[mx.array]:
    """The arrays of all layers."""
    states = tree_flatten([layer.state for layer in cache])
    return [leaf for _, leaf in states if isinstance(leaf, mx.array)]


def num_bytes(cache: PromptCache) -> int:
    """Memory of the cache, room for more tokens included."""
    return sum(int(array.nbytes) for array in arrays(cache))


def layer_of(name: str, state: Any) -> LayerCache:
    """The layer of the class ``name`` with that ``state``; ``ValueError`` for a class not known."""
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
    # Python objects of their own: MLX changes the object itself when a slice of it is assigned.
    twin = copy.deepcopy(layer)
    if layer.empty() or isinstance(layer, mlx_cache.ArraysCache):
        return twin
    twin.trim(layer.offset - num_tokens)
    if isinstance(layer, _GROWING) or layer.offset > num_tokens:
        _shrink(twin, num_tokens)
    return twin


def _contiguous(leaf: Any) -> Any:
    return mx.contiguous(leaf) if isinstance(leaf, mx.array) else leaf


def _shrink(layer: Any, num_tokens: int) -> None:
    """Let go of the room behind the tokens, which would be copied with the first write."""
    layer.keys, layer.values = tree_map(
        lambda array: array[..., :num_tokens, :], (layer.keys, layer.values)
    )
    if isinstance(layer, mlx_cache.QuantizedKVCache):
        layer.keys, layer.values = list(layer.keys), list(layer.values)
