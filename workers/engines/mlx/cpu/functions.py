"""On a CPU, NumPy computes attention and activations for MLX.

MLX's softmax and sigmoid take 40 to 100 ns per element there, as their exponentials are computed
one by one, and its products of attention use the reference BLAS (``cpu_layers.py``): 7 ms for 170
rows of 4 heads with 32 values, of which NumPy takes 0.5 ms.
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

# Scores at a time. Small blocks leave out more of what a causal mask hides, and stay in a cache;
# products of still fewer rows are slower.
_BLOCK_ROWS, _BLOCK_BYTES = 128, 16 << 20
# Scores of a single row from which on MLX takes longer than stopping to have them computed here.
_MIN_SCORES = 4096
_FEW_ROWS, _MANY_TOKENS = 8, 512
_MASKED = np.finfo(np.float32).min  # finite, so that a row without any token has no NaN
_mlx_attention = base.scaled_dot_product_attention
_mlx_swiglu = activations.swiglu


def install(module: nn.Module) -> None:
    """Let the code of the model's layers use the functions of this file instead of mlx_lm's.

    They are names in the namespaces of mlx_lm's modules, and so changed for the whole process.
    """
    for name, theirs, ours in _replaced():
        _replace(module, name, theirs, ours)


def remove(module: nn.Module) -> None:
    """Let it use mlx_lm's again."""
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
    """``mlx_lm.models.base.scaled_dot_product_attention``.

    ``queries`` (batch, heads, rows, width), ``keys`` and ``values`` (batch, kv heads, tokens,
    width), ``mask`` "causal", or true (or 0) where to look, (batch or 1, heads or 1, rows, tokens).
    """
    is_plain = sinks is None and not hasattr(cache, "bits") and queries.dtype == mx.float32
    if not is_plain or _is_small(queries, keys):
        return _mlx_attention(queries, keys, values, cache, scale, mask, sinks)
    mx.eval(queries, keys, values)  # together: to wait for each costs more than most of them
    shown = mask if isinstance(mask, str) or mask is None else np.asarray(mask)
    return mx.array(
        _attend(np.asarray(queries), np.asarray(keys), np.asarray(values), scale, shown)
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
    num_held = _BLOCK_BYTES // (4 * num_batch * num_heads * num_tokens)
    block = min(max(1, num_held), _BLOCK_ROWS)
    for start in range(0, num_rows, block):
        rows = slice(start, start + block)
        asked: Floats = queries[:, :, rows] * np.float32(scale)
        num_now = asked.shape[2]
        # With "causal", what comes after the block's last row is nobody's to see.
        end = num_tokens - num_rows + start + num_now if isinstance(mask, str) else num_tokens
        # The query heads of one kv head as rows of one product.
        asked = asked.reshape(num_batch, num_kv_heads, -1, queries.shape[-1])
        blas.prepare(end * asked[0, 0].size)  # one product per batch row and kv head
        scores = _scores(asked, keys[:, :, :end]).reshape(num_batch, num_heads, num_now, end)
        _apply(mask, scores, start)
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        sums = scores.sum(axis=-1, keepdims=True)
        weighted = scores.reshape(num_batch, num_kv_heads, -1, end) @ values[:, :, :end]
        result[:, :, rows] = weighted.reshape(num_batch, num_heads, num_now, -1) / sums
    return result


def _scores(asked: Floats, keys: Floats) -> Floats:
    """(batch, kv heads, rows, width) and (batch, kv heads, tokens, width): each row by each token.

    For a few rows OpenBLAS rearranges all keys before it multiplies, which takes 2 to 6 times as
    long as reading them once for each row.
    """
    num_rows, num_tokens = asked.shape[2], keys.shape[2]
    if 1 < num_rows <= _FEW_ROWS and num_tokens >= _MANY_TOKENS:
        return cast(Floats, asked[..., None, :] @ keys[:, :, None].swapaxes(-1, -2))
    return cast(Floats, asked @ keys.swapaxes(-1, -2))


def _apply(mask: npt.NDArray[Any] | str | None, scores: Floats, start: int) -> None:
    """Hide from the rows, of which the first is ``start``, the tokens they may not look at.

    With "causal" the scores end with the last row's own token.
    """
    num_now = scores.shape[-2]
    if mask is None:
        return
    if isinstance(mask, str):
        hidden = np.triu(np.full((num_now, num_now), _MASKED), k=1)
        scores[..., -num_now:] += hidden
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
