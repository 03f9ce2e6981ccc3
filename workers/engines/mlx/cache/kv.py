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


def can_always_trim(cache: PromptCache) -> bool:
    """Whether an empty cache can be trimmed at any length: no window, no recurrent state."""
    return all(layer.is_trimmable() and max_tokens(layer) is None for layer in leaves(cache))


def can_trim(cache: PromptCache) -> bool:
    """Whether ``cache`` can be cut to any prefix now; also works for the cache of a batch."""
    return all(_can_trim(layer) for layer in leaves(cache))


def can_trim_after(cache: PromptCache, num_tokens: int) -> bool:
    """``can_trim`` as it will be with ``num_tokens`` more in the cache."""

    def can_trim_layer(layer: Any) -> bool:
        limit = max_tokens(layer)
        is_within = limit is None or layer.offset + num_tokens < limit
        return _can_trim(layer) and is_within

    return all(map(can_trim_layer, leaves(cache)))


def _can_trim(layer: Any) -> bool:
    # A chunked cache calls itself trimmable after it has dropped its first tokens too.
    return bool(layer.is_trimmable()) and not getattr(layer, "start_position", 0)


def max_tokens(layer: Any) -> int | None:
    """The number of tokens from which on the layer forgets the first ones; ``None``: never."""
    limit: int | None = getattr(layer, "max_size", None) or getattr(layer, "chunk_size", None)
    return limit


def prefix(cache: PromptCache, num_tokens: int) -> PromptCache:
    """A copy of the state after the first ``num_tokens``, all of them unless ``can_trim``."""
    return [_prefix(layer, num_tokens) for layer in cache]


def snapshot(cache: PromptCache, num_tokens: int) -> PromptCache:
    """As ``prefix``, for a running sequence: copies the memory at once.

    A lazy copy would share the running sequence's buffers, and each of its steps would copy them.
    """
    taken = prefix(cache, num_tokens)
    for layer in leaves(taken):
        layer.state = tree_map(_contiguous, layer.state)
    mx.eval(arrays(taken))
    return taken


def row(batch: PromptCache, index: int) -> PromptCache:
    """A copy of one row of a batch's cache, as the cache of a single sequence."""
    return [cast(Any, layer).extract(index) for layer in batch]


def cut(cache: PromptCache, num_tokens: int) -> None:
    """Trim in place to the first ``num_tokens``; only if ``can_trim``."""
    for layer in leaves(cache):
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
    kind = getattr(mlx_cache, name, None)
    if not (isinstance(kind, type) and hasattr(kind, "from_state")):
        raise ValueError(f"there is no cache layer {name!r}")
    return cast(LayerCache, kind.from_state(state))


def leaves(cache: PromptCache) -> Iterator[Any]:
    """The layers, and in place of a list of caches the ones in it."""
    for layer in cache:
        if isinstance(layer, mlx_cache.CacheList):
            yield from leaves(list(layer.caches))
        else:
            yield layer


def _prefix(layer: Any, num_tokens: int) -> Any:
    if isinstance(layer, mlx_cache.CacheList):
        return mlx_cache.CacheList(*(_prefix(inner, num_tokens) for inner in layer.caches))
    # Copy the Python objects too: assigning to a slice of an MLX array changes the object itself.
    copied = copy.deepcopy(layer)
    if layer.empty() or not _can_trim(layer):
        return copied
    copied.trim(layer.offset - num_tokens)
    if max_tokens(layer) is None or layer.offset > num_tokens:
        _shrink(copied, num_tokens)
    return copied


def _contiguous(leaf: Any) -> Any:
    return mx.contiguous(leaf) if isinstance(leaf, mx.array) else leaf


def _shrink(layer: Any, num_tokens: int) -> None:
    """Drop the allocated space behind the tokens, which the first write would copy too."""
    layer.keys, layer.values = tree_map(
        lambda array: array[..., :num_tokens, :], (layer.keys, layer.values)
    )
    if isinstance(layer.keys, tuple):  # a quantized cache's, which has lists
        layer.keys, layer.values = list(layer.keys), list(layer.values)
