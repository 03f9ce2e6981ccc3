"""On a CPU, NumPy computes attention and activations for MLX.

MLX's softmax and sigmoid take 40 to 100 ns per element there, as their exponentials are computed
one by one, and its products of attention use the reference BLAS (``cpu_layers.py``): 7 ms for 170
rows of 4 heads with 32 values, of which NumPy takes 0.5 ms.
"""

from __future__ import annotations

import sys
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
from mlx_lm.models import activations, base  # type: ignore[import-untyped, unused-ignore]

from workers.engines.mlx.cpu_threads import blas

Floats = npt.NDArray[np.float32]

_BLOCK_BYTES = 16 << 20  # of scores at a time
_MASKED = np.finfo(np.float32).min  # finite, so that a row without any token has no NaN
_mlx_attention = base.scaled_dot_product_attention
_mlx_swiglu = activations.swiglu


def install(module: nn.Module) -> None:
    """Let the code of the model's layers use the functions of this file instead of mlx_lm's.

    They are names in the namespaces of mlx_lm's modules, and so changed for the whole process.
    """
    namespaces = {type(layer).__module__ for _, layer in module.named_modules()}
    for namespace in map(sys.modules.__getitem__, namespaces):
        for name, theirs, ours in (
            ("scaled_dot_product_attention", _mlx_attention, attention),
            ("swiglu", _mlx_swiglu, swiglu),
        ):
            if getattr(namespace, name, None) is theirs:
                setattr(namespace, name, ours)


def attention(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    cache: Any,
    scale: float,
    mask: mx.array | str | None,
    sinks: mx.array | None = None,
) -> mx.array:
    """``mlx_lm.models.base.scaled_dot_product_attention``.

    ``queries`` (batch, heads, rows, width), ``keys`` and ``values`` (batch, kv heads, tokens,
    width), ``mask`` "causal", or true (or 0) where to look, (batch or 1, heads or 1, rows, tokens).
    """
    is_plain = sinks is None and not hasattr(cache, "bits") and queries.dtype == mx.float32
    if not is_plain or queries.shape[0] * queries.shape[2] == 1:
        return _mlx_attention(queries, keys, values, cache, scale, mask, sinks)
    shown = mask if isinstance(mask, str) or mask is None else np.asarray(mask)
    return mx.array(
        _attend(np.asarray(queries), np.asarray(keys), np.asarray(values), scale, shown)
    )


def _attend(
    queries: Floats, keys: Floats, values: Floats, scale: float, mask: npt.NDArray[Any] | str | None
) -> Floats:
    num_batch, num_heads, num_rows, _ = queries.shape
    num_kv_heads, num_tokens = keys.shape[1:3]
    result = np.empty((num_batch, num_heads, num_rows, values.shape[-1]), np.float32)
    block = max(1, _BLOCK_BYTES // (4 * num_batch * num_heads * num_tokens))
    for start in range(0, num_rows, block):
        rows = slice(start, start + block)
        asked: Floats = queries[:, :, rows] * np.float32(scale)
        num_now = asked.shape[2]
        # The query heads of one kv head as rows of one product.
        asked = asked.reshape(num_batch, num_kv_heads, -1, queries.shape[-1])
        blas.prepare(num_tokens * asked[0, 0].size)  # one product per batch row and kv head
        scores: Floats = asked @ keys.swapaxes(-1, -2)
        scores = scores.reshape(num_batch, num_heads, num_now, num_tokens)
        _apply(mask, scores, start, num_rows)
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        seen = scores.reshape(num_batch, num_kv_heads, -1, num_tokens) @ values
        result[:, :, rows] = seen.reshape(num_batch, num_heads, num_now, -1)
    return result


def _apply(mask: npt.NDArray[Any] | str | None, scores: Floats, start: int, num_rows: int) -> None:
    """Hide the tokens that the rows from ``start`` on (of ``num_rows``) may not look at."""
    num_now, num_tokens = scores.shape[-2:]
    if mask is None:
        return
    if isinstance(mask, str):
        own = np.arange(start, start + num_now)[:, None] + num_tokens - num_rows
        np.copyto(scores, _MASKED, where=np.arange(num_tokens) > own)
        return
    shown = mask[..., start : start + num_now, :] if mask.shape[-2] > 1 else mask
    if shown.dtype == np.bool_:
        np.copyto(scores, _MASKED, where=~shown)
    else:
        scores += shown


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """``mlx_lm.models.activations.swiglu``: gate · sigmoid(gate) · x."""
    if gate.dtype != mx.float32 or gate.size == gate.shape[-1]:
        return _mlx_swiglu(gate, x)
    values = np.asarray(gate)
    with np.errstate(over="ignore"):  # the exponential of a very negative gate: infinite, so 0
        activated = np.exp(-values)
    activated += 1
    np.divide(values, activated, out=activated)
    activated *= np.asarray(x)
    return mx.array(activated)
