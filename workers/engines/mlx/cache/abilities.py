"""What a model's KV caches can do: tried on the model.

The classes of the caches do not tell: a model may take positions from a cache in a way that works
for one sequence only, or have caches of its own. So a few steps are planned without computing
anything, and their shapes compared with those of a plain run; then one small batch is computed,
since a model that takes positions from the padded length of a batch has the right shapes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from collections.abc import Sequence as ListLike
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from workers.engines.mlx import library
from workers.engines.mlx.cache import kv
from workers.engines.mlx.library import Model, PromptCache

log = logging.getLogger(__name__)

_Shapes = list[tuple[int, ...]]
# Tokens of the computed rows. Most states that count tokens differ at one token, most positions at
# several.
_ROWS = ([1, 2, 3, 4, 5, 6], [7, 8, 9], [1])
# Distance of a row's logits from those of the row alone, as a share of their spread. Float32 on a
# CPU gives 0.0, positions that are wrong 0.1 and more.
_MAX_DISTANCE = 0.02
# Other kernels and other experts give a batch noise, at half precision; how much is then measured.
_TIMES_NOISE = 5.0
# A layer with this attribute cuts keys into blocks by their place in the cache, which the padding
# of a batch shifts: an error that begins after thousands of tokens.
_BLOCK_SIZE = "index_block_size"


@dataclass(frozen=True, slots=True)
class CacheAbilities:
    """``can_batch``: sequences can be decoded together. ``can_keep``: states can be copied and, if
    the caches say that they can be trimmed, cut to a prefix."""

    can_batch: bool
    can_keep: bool


def plan_abilities(model: Model) -> CacheAbilities:
    """Try the caches by shapes; best before the CPU tuning, which computes some parts at once.

    Raises what the model raises for a plain prompt.
    """
    _after(model, 1)
    return CacheAbilities(_works(_try_batch, model), _works(_try_keeping, model))


def computes_batches(model: Model) -> bool:
    """Whether rows in a batch get the logits that they get alone; computes a few tokens."""
    return _works(_has_equal_rows, model)


def _works(attempt: Callable[[Model], bool], model: Model) -> bool:
    try:
        works, why = attempt(model), "other results"
    except Exception as error:  # a model's own code raises anything
        works, why = False, repr(error)
    if not works:
        log.info("this model cannot do it", extra={"attempt": attempt.__name__, "why": why})
    return works


def _try_batch(model: Model) -> bool:
    """Rows of unequal length that join, leave and are copied."""
    if _has_blocks(model):
        return False
    batch = library.merge([_after(model, 3), _after(model, 2)])
    batch = library.extended(batch, library.merge([_after(model, 1)]))
    logits = _run(model, batch, num_rows=3)
    library.keep_rows(batch, [0, 2])
    _run(model, batch, num_rows=2)
    row = kv.row(batch, 0)
    _run(model, row)
    return logits.shape[:2] == (3, 1) and _shapes(row) == _shapes(_after(model, 6))


def _has_blocks(model: Model) -> bool:
    modules = model.modules() if isinstance(model, nn.Module) else []
    return any(getattr(module, _BLOCK_SIZE, None) for module in modules)


def _try_keeping(model: Model) -> bool:
    """A copy that goes on; and one of a prefix, one that is cut in place."""
    cache = _after(model, 3)
    kept = [(kv.prefix(cache, 3), 4)]
    if kv.can_trim(cache):
        kept.append((kv.prefix(cache, 2), 3))
        kv.cut(cache, 1)
        kept.append((cache, 2))
    for state, num_tokens in kept:
        _run(model, state)
        if _shapes(state) != _shapes(_after(model, num_tokens)):
            return False
    return True


def _has_equal_rows(model: Model) -> bool:
    alone = _next_logits(model, _ROWS, is_together=False)
    distance = _distance(_next_logits(model, _ROWS, is_together=True), alone)
    if distance <= _MAX_DISTANCE:
        return True
    # Rows of one length have no padding: what differs then is noise.
    equal = [_ROWS[1]] * len(_ROWS)
    noise = _distance(
        _next_logits(model, equal, is_together=True), mx.stack([alone[1]] * len(_ROWS))
    )
    return distance <= _TIMES_NOISE * noise


def _next_logits(model: Model, rows: ListLike[list[int]], *, is_together: bool) -> mx.array:
    """The logits after each row and one token more, (rows, vocab)."""
    caches = [_read(model, row) for row in rows]
    if is_together:
        return _run(model, library.merge(caches), num_rows=len(rows))[:, -1]
    return mx.concatenate([_run(model, cache)[:, -1] for cache in caches])


def _read(model: Model, tokens: list[int]) -> PromptCache:
    cache = library.new_cache(model)
    model(mx.array([tokens], dtype=mx.uint32), cache=cache)
    return cache


def _distance(some: mx.array, others: mx.array) -> float:
    """The largest distance of two rows of logits, as a share of their spread."""
    some, others = some.astype(mx.float32), others.astype(mx.float32)
    spread = mx.linalg.norm(others - others.mean(axis=-1, keepdims=True), axis=-1)
    distances = mx.linalg.norm(some - others, axis=-1) / spread
    return cast(float, distances.max().item())


def _after(model: Model, num_tokens: int) -> PromptCache:
    """The planned state after so many tokens."""
    cache = library.new_cache(model)
    for _ in range(num_tokens):
        _run(model, cache)
    return cache


def _run(model: Model, cache: PromptCache, num_rows: int = 1) -> mx.array:
    return model(mx.zeros((num_rows, 1), dtype=mx.uint32), cache=cache)


def _shapes(cache: PromptCache) -> _Shapes:
    return [shape for layer in kv.leaves(cache) for shape in _shapes_of(layer)]


def _shapes_of(layer: Any) -> _Shapes:
    """Of what the layer holds of its tokens, without allocated space, and their number."""
    has_tokens = hasattr(layer, "keys_and_values") and not layer.empty()
    held = layer.keys_and_values() if has_tokens else layer.state
    arrays = [part for _, part in tree_flatten(held) if isinstance(part, mx.array)]
    return [tuple(array.shape) for array in arrays] + [(int(getattr(layer, "offset", 0)),)]
