"""On a CPU, norms and rotary positions in fewer operations.

MLX has no kernels for them there and takes them apart: a decode step of 6 layers had 965
operations, of which 663 are left, and each costs some microseconds however small it is.
"""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np


def install(module: nn.Module) -> None:
    """Let all RMS norms and plain rotary positions of a loaded model take this way in float32."""
    rotations: dict[tuple[int, float, float], Rotation] = {}
    for _, layer in module.named_modules():
        if type(layer) is nn.RMSNorm:
            layer.__class__ = CpuRMSNorm
            layer.prepare()
        elif type(layer) is nn.RoPE and not layer.traditional:
            key = (layer.dims, layer.base, layer.scale)
            layer.__class__ = CpuRoPE
            layer.rotation = rotations.setdefault(key, Rotation(*key))


class CpuRMSNorm(nn.RMSNorm):
    """``nn.RMSNorm`` with the mean's division drawn into the weight."""

    def prepare(self) -> None:
        """Called once, when the weight is there."""
        size = self["weight"].size
        # With an underscore it is none of the model's parameters.
        self._weight = self["weight"].astype(mx.float32) * math.sqrt(size)
        self._eps = self.eps * size

    def __call__(self, x: mx.array) -> mx.array:
        """(..., width) -> (..., width)."""
        if x.dtype != mx.float32:
            return super().__call__(x)
        squares = mx.square(x).sum(axis=-1, keepdims=True)
        return x * mx.rsqrt(squares + self._eps) * self._weight


class CpuRoPE(nn.RoPE):
    """``nn.RoPE`` for whole heads; ``rotation`` is shared by the layers of a model."""

    rotation: Rotation

    def __call__(self, x: mx.array, offset: Any = 0) -> mx.array:
        """(batch, heads, rows, dims) from position ``offset`` on, or from one per batch row."""
        num_rows, dims = x.shape[-2:]
        is_per_row = isinstance(offset, mx.array)
        if x.dtype != mx.float32 or dims != self.dims or (is_per_row and num_rows > 1):
            return super().__call__(x, offset)
        if is_per_row:
            cosines, sines = self.rotation.of_rows(offset)
        else:
            cosines, sines = self.rotation.of_range(offset, num_rows)
        half = dims // 2
        turned = mx.concatenate([x[..., half:], x[..., :half]], axis=-1)
        return x * cosines + turned * sines


class Rotation:
    """The factors of a position: cosines, and sines with the sign of their half."""

    def __init__(self, dims: int, base: float, scale: float) -> None:
        half = dims // 2
        frequencies = np.exp(np.arange(half) * (-math.log(base) / half)) * scale
        self._frequencies = np.tile(frequencies, 2).astype(np.float32)
        self._signs = np.repeat(np.array([-1, 1], np.float32), half)
        self._range = (0, 0)
        self._factors = (mx.zeros(()), mx.zeros(()))

    def of_range(self, first: int, count: int) -> tuple[mx.array, mx.array]:
        """Of ``count`` positions from ``first`` on, each (count, dims).

        Made once for all layers of a step, which ask one after the other.
        """
        if (first, count) != self._range:
            places = np.arange(first, first + count, dtype=np.float32)[:, None]
            angles = places * self._frequencies
            self._factors = (mx.array(np.cos(angles)), mx.array(np.sin(angles) * self._signs))
            self._range = (first, count)
        return self._factors

    def of_rows(self, positions: mx.array) -> tuple[mx.array, mx.array]:
        """Of one position for each batch row, each (batch, 1, 1, dims); nothing is computed yet."""
        places = positions.astype(mx.float32).reshape(-1, 1, 1, 1)
        angles = places * mx.array(self._frequencies)
        return mx.cos(angles), mx.sin(angles) * mx.array(self._signs)
