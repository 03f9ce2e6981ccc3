"""On a CPU, NumPy's BLAS computes the larger matrix products for MLX.

MLX's wheel for Linux uses the reference BLAS: 170 rows through weights of 512 x 2048 take 130 ms,
and 150 ms in its kernel for quantized weights. NumPy uses OpenBLAS: 1.7 ms, and 2.7 ms more if
quantized weights have to be expanded first.
"""

from __future__ import annotations

from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from jobs.memory.load_defaults import EXPANDED_BYTES
from workers.engines.mlx.cpu.threads import blas

# From this many rows on, expanding the weights for one product is faster than MLX's own product.
_MIN_ROWS = 8
# From this many multiplications on, NumPy is faster, although evaluating MLX's graph costs 50 µs.
_MIN_PRODUCT = 150_000

Weights = npt.NDArray[np.float32]


def install(module: nn.Module, vocab_size: int, kept_bytes: int = EXPANDED_BYTES) -> int:
    """Replace the classes of all linear layers of a float32 model.

    Returns how much memory expanded weights will take, at most ``kept_bytes``.

    These products are computed at once, not lazily. So the head (a layer as wide as the
    vocabulary) uses NumPy only for the rows of a batch: of a prompt most logits are not needed.
    """
    most_bytes = kept_bytes
    for _, layer in module.named_modules():
        if type(layer) is nn.Linear:
            layer.__class__ = BlasLinear
        elif type(layer) is nn.QuantizedLinear:
            layer.__class__ = BlasQuantizedLinear
        elif type(layer) is nn.QuantizedEmbedding:
            layer.__class__ = BlasQuantizedEmbedding
        else:
            continue
        layer.is_head = cast(Any, layer)["weight"].shape[0] == vocab_size
        if isinstance(layer, BlasLinear):
            continue
        num_bytes = 4 * layer["scales"].size * layer.group_size
        # Expanded at the first use; never for an embedding that is not a head.
        layer.expanded, layer.is_kept = None, num_bytes <= kept_bytes
        kept_bytes -= num_bytes if layer.is_kept else 0
    return most_bytes - kept_bytes


class BlasLinear(nn.Linear):
    """``nn.Linear`` whose larger products NumPy computes."""

    is_head: bool

    def __call__(self, x: mx.array) -> mx.array:
        """(..., in) -> (..., out)."""
        weights = self["weight"]
        if not _is_faster(x, weights.size, is_head=self.is_head):
            return super().__call__(x)
        return _product(x, np.asarray(weights), self.get("bias"))


class BlasQuantizedLinear(nn.QuantizedLinear):
    """``nn.QuantizedLinear`` whose larger products NumPy computes."""

    is_head: bool
    is_kept: bool
    expanded: Weights | None

    def __call__(self, x: mx.array) -> mx.array:
        """(..., in) -> (..., out)."""
        weights = _weights_for(self, x)
        if weights is None:
            return super().__call__(x)
        return _product(x, weights, self.get("bias"))


class BlasQuantizedEmbedding(nn.QuantizedEmbedding):
    """``nn.QuantizedEmbedding`` whose product as a tied head NumPy computes."""

    is_head: bool
    is_kept: bool
    expanded: Weights | None

    def as_linear(self, x: mx.array) -> mx.array:
        """(..., width) -> (..., vocabulary)."""
        weights = _weights_for(self, x)
        return super().as_linear(x) if weights is None else _product(x, weights, None)


def _weights_for(layer: Any, x: mx.array) -> Weights | None:
    """A quantized layer's expanded weights (out, in); ``None`` if MLX's product is faster."""
    num_weights = layer["scales"].size * layer.group_size
    if not _is_faster(x, num_weights, is_head=layer.is_head):
        return None
    if layer.is_kept and layer.expanded is None:
        layer.expanded = _expand(layer)
    if layer.expanded is not None:
        return cast(Weights, layer.expanded)
    return _expand(layer) if x.size // x.shape[-1] >= _MIN_ROWS else None


def _is_faster(x: mx.array, num_weights: int, *, is_head: bool) -> bool:
    if x.dtype != mx.float32 or (is_head and x.ndim > 1 and x.shape[-2] > 1):
        return False
    return x.size // x.shape[-1] * num_weights >= _MIN_PRODUCT


def _expand(layer: Any) -> Weights:
    """The weights of a quantized layer, (out, in)."""
    return np.asarray(
        mx.dequantize(
            layer["weight"],
            layer["scales"],
            layer.get("biases"),
            layer.group_size,
            layer.bits,
            mode=layer.mode,
        )
    )


def _product(x: mx.array, weights: Weights, bias: mx.array | None) -> mx.array:
    rows = np.asarray(x).reshape(-1, x.shape[-1])
    blas.prepare(rows.shape[0] * weights.size, weights.size)
    product = rows @ weights.T
    if bias is not None:
        product += np.asarray(bias)
    return mx.array(product.reshape(*x.shape[:-1], -1))
