"""On a CPU, NumPy computes attention and activations for MLX.

MLX's softmax and sigmoid take 40 to 100 ns per element there, because the exponentials are not
vectorised. Its attention products use the reference BLAS (``layers.py``): 7 ms for 170 rows of 4
heads with 32 values; NumPy takes 0.5 ms.
"""

from __future__ import annotations

import sys
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
from mlx_lm.models import activations, base  # type: ignore[import-untyped, unused-ignore]

from workers.engines.mlx.cpu.threads import blas

Floats = npt.NDArray[np.float32]

# Size of a block of scores. Small blocks skip more of what a causal mask hides and stay in the CPU
# cache; with still fewer rows products are slower.
_BLOCK_ROWS, _BLOCK_BYTES = 128, 16 << 20
# From this many scores of a single row on, NumPy is faster, although MLX's graph must be evaluated.
_MIN_SCORES = 4096
_FEW_ROWS, _MANY_TOKENS = 8, 512
_MASKED = np.finfo(np.float32).min  # finite, so that a fully masked row gives no NaN
_mlx_attention = base.scaled_dot_product_attention
_mlx_swiglu = activations.swiglu


def install(module: nn.Module) -> None:
    """Replace mlx_lm's functions by those of this file in the modules of the model's layers.

    The names are replaced in module namespaces, so this affects the whole process.
    """
    for name, theirs, ours in _replaced():
        _replace(module, name, theirs, ours)


def remove(module: nn.Module) -> None:
    """Restore mlx_lm's functions."""
    for name, theirs, ours in _replaced():
        _replace(module, name, ours, theirs)


def _replaced() -> tuple[tuple[str, object, object], ...]:
    return (
        ("scaled_dot_product_attention", _mlx_attention, attention),
        ("swiglu", _mlx_swiglu, swiglu),
    )


def _replace(module: nn.Module, name: str, old: object, new: object) -> None:
    namespaces = {type(layer).__module__ for _, layer in module.named_modules()}
    for namespace in map(sys.modules.__getitem__, namespaces):
        if getattr(namespace, name, None) is old:
            setattr(namespace, name, new)


def attention(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    cache: Any,
    scale: float,
    mask: mx.array | str | None,
    sinks: mx.array | None = None,
) -> mx.array:
    """Replaces ``mlx_lm.models.base.scaled_dot_product_attention``.

    ``queries`` (batch, heads, rows, width); ``keys`` and ``values`` (batch, kv heads, tokens,
    width); ``mask`` "causal", or (batch or 1, heads or 1, rows, tokens): bool with True for visible
    tokens, or float to be added to the scores. Returns (batch, heads, rows, width).
    """
    is_plain = sinks is None and not hasattr(cache, "bits") and queries.dtype == mx.float32
    if not is_plain or _is_small(queries, keys):
        return _mlx_attention(queries, keys, values, cache, scale, mask, sinks)
    mx.eval(queries, keys, values)  # together: each wait costs more than most of the computations
    visible = mask if isinstance(mask, str) or mask is None else np.asarray(mask)
    return mx.array(
        _attend(np.asarray(queries), np.asarray(keys), np.asarray(values), scale, visible)
    )


def _is_small(queries: mx.array, keys: mx.array) -> bool:
    num_batch, num_heads, num_rows, _ = queries.shape
    return num_batch * num_rows == 1 and num_heads * keys.shape[2] < _MIN_SCORES


def _attend(
    queries: Floats, keys: Floats, values: Floats, scale: float, mask: npt.NDArray[Any] | str | None
) -> Floats:
    num_batch, num_heads, num_rows, _ = queries.shape
    num_kv_heads, num_tokens = keys.shape[1:3]
    result = np.empty((num_batch, num_heads, num_rows, values.shape[-1]), np.float32)
    num_fitting = _BLOCK_BYTES // (4 * num_batch * num_heads * num_tokens)
    block = min(max(1, num_fitting), _BLOCK_ROWS)
    for start in range(0, num_rows, block):
        rows = slice(start, start + block)
        scaled: Floats = queries[:, :, rows] * np.float32(scale)
        num_now = scaled.shape[2]
        # With "causal", no row of the block sees the tokens after the block's last row.
        end = num_tokens - num_rows + start + num_now if isinstance(mask, str) else num_tokens
        # The query heads of one kv head become rows of one product.
        scaled = scaled.reshape(num_batch, num_kv_heads, -1, queries.shape[-1])
        blas.prepare(end * scaled[0, 0].size)  # one product per batch row and kv head
        scores = _scores(scaled, keys[:, :, :end]).reshape(num_batch, num_heads, num_now, end)
        _apply(mask, scores, start)
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        sums = scores.sum(axis=-1, keepdims=True)
        weighted = scores.reshape(num_batch, num_kv_heads, -1, end) @ values[:, :, :end]
        result[:, :, rows] = weighted.reshape(num_batch, num_heads, num_now, -1) / sums
    return result


def _scores(queries: Floats, keys: Floats) -> Floats:
    """(batch, kv heads, rows, width), (batch, kv heads, tokens, width) -> (…, rows, tokens).

    For a few rows OpenBLAS rearranges all keys before it multiplies; that takes 2 to 6 times as
    long as one product per row.
    """
    num_rows, num_tokens = queries.shape[2], keys.shape[2]
    if 1 < num_rows <= _FEW_ROWS and num_tokens >= _MANY_TOKENS:
        return cast(Floats, queries[..., None, :] @ keys[:, :, None].swapaxes(-1, -2))
    return cast(Floats, queries @ keys.swapaxes(-1, -2))


def _apply(mask: npt.NDArray[Any] | str | None, scores: Floats, start: int) -> None:
    """Apply the mask to ``scores``, in place; their first row is row ``start`` of the mask.

    With "causal" the last column of the scores is the last row's own token.
    """
    num_now = scores.shape[-2]
    if mask is None:
        return
    if isinstance(mask, str):
        hidden = np.triu(np.full((num_now, num_now), _MASKED), k=1)
        scores[..., -num_now:] += hidden
        return
    part = mask[..., start : start + num_now, :] if mask.shape[-2] > 1 else mask
    if part.dtype == np.bool_:
        np.copyto(scores, _MASKED, where=~part)
    else:
        scores += part


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """Replaces ``mlx_lm.models.activations.swiglu``: gate · sigmoid(gate) · x, shape of ``x``."""
    if gate.dtype != mx.float32 or gate.size == gate.shape[-1]:
        return _mlx_swiglu(gate, x)
    values = np.asarray(gate)
    with np.errstate(over="ignore"):  # exp of a very negative gate is infinite, the result is 0
        activated = np.exp(-values)
    activated += 1
    np.divide(values, activated, out=activated)
    activated *= np.asarray(x)
    return mx.array(activated)
