"""A model's head, computed for the last of the tokens read where no other's logits are wanted.

With it the token that ends a prompt is read with the ones before, and the first token of the answer
comes of the same pass. A model gives logits for all that it reads, and computing them for all to
keep the last row would cost as much as reading that token in a step of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from workers.engines.mlx import library
from workers.engines.mlx.library import Model

_LINEAR = (nn.Linear, nn.QuantizedLinear)
_EMBEDDING = (nn.Embedding, nn.QuantizedEmbedding)


class Head:
    """Says to the layer that makes a model's logits how many are wanted."""

    def __init__(self) -> None:
        self._is_last_only = False

    @contextmanager
    def last_only(self) -> Iterator[None]:
        """Calls of the model within give logits (batch, 1, vocabulary): the last token's."""
        self._is_last_only = True
        try:
            yield
        finally:
            self._is_last_only = False

    def wanted(self, hidden: mx.array) -> mx.array:
        """Those of the hidden states (..., tokens, width) that become logits."""
        return hidden[..., -1:, :] if self._is_last_only else hidden


def find_head(module: nn.Module, vocab_size: int) -> Head | None:
    """The head of a loaded model; ``None`` where it is not the one layer that it should be.

    Layers whose class is to be changed have to be changed before.
    """
    layer = _head_layer(module, vocab_size)
    if layer is None:
        return None
    head, plain = Head(), type(layer)
    mixin = _LinearHead if isinstance(layer, _LINEAR) else _EmbeddingHead
    layer.__class__ = type(plain.__name__, (mixin, plain), {})
    layer.head = head
    if _gives_one_row(cast(Model, module), head, vocab_size):
        return head
    layer.__class__ = plain
    return None


def _head_layer(module: nn.Module, vocab_size: int) -> Any | None:
    """The one linear layer as wide as the vocabulary, else the one embedding, which is both."""
    for kinds in (_LINEAR, _EMBEDDING):
        layers = [layer for _, layer in module.named_modules() if isinstance(layer, kinds)]
        found = [layer for layer in layers if layer["weight"].shape[0] == vocab_size]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _gives_one_row(model: Model, head: Head, vocab_size: int) -> bool:
    """Whether it works in the model: an adapter's layer, say, adds rows of its own to the head's.

    A shape is all that is asked for; only what NumPy does for MLX on a CPU is computed for it.
    """
    tokens = mx.zeros((1, 2), dtype=mx.uint32)
    with head.last_only():
        try:
            logits = model(tokens, cache=library.new_cache(model))
        except Exception:  # a model's own code may count on all rows, and raises anything then
            return False
    return logits.shape == (1, 1, vocab_size)


class _LinearHead:
    head: Head

    def __call__(self, x: mx.array) -> mx.array:
        """(..., tokens, width) -> (..., tokens or 1, vocabulary)."""
        return cast(mx.array, cast(Any, super()).__call__(self.head.wanted(x)))


class _EmbeddingHead:
    head: Head

    def as_linear(self, x: mx.array) -> mx.array:
        """(..., tokens, width) -> (..., tokens or 1, vocabulary)."""
        return cast(mx.array, cast(Any, super()).as_linear(self.head.wanted(x)))
