"""A model's head (output layer): only for the last token where no other logits are needed.

Then the last token of a prompt is prefilled together with the ones before it, and the same pass
gives the first token of the answer. Models return logits for all input tokens; to compute all of
them and keep the last row would cost as much as a separate step for the last token.

What comes into the head are the hidden states, which embeddings are made of.
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
    """Tells the layer that makes a model's logits which rows are needed."""

    def __init__(self) -> None:
        self._is_last_only = False
        self._captured: list[mx.array] | None = None

    @contextmanager
    def captured(self) -> Iterator[list[mx.array]]:
        """As ``last_only``; the hidden states (batch, tokens, width) come into the list."""
        self._captured = []
        try:
            with self.last_only():
                yield self._captured
        finally:
            self._captured = None

    @contextmanager
    def last_only(self) -> Iterator[None]:
        """Inside this context the model returns the last token's logits only, (batch, 1, vocab)."""
        self._is_last_only = True
        try:
            yield
        finally:
            self._is_last_only = False

    def select(self, hidden: mx.array) -> mx.array:
        """The rows of the hidden states (..., tokens, width) for which logits are needed."""
        if self._captured is not None:
            self._captured.append(hidden)
        return hidden[..., -1:, :] if self._is_last_only else hidden


def find_head(module: nn.Module, vocab_size: int) -> Head | None:
    """The head of a loaded model; ``None`` if it cannot be found or does not work.

    Changes the class of the head's layer; other changes of layer classes must come before.
    """
    tried = (_try_head(module, layer, vocab_size) for layer in _candidates(module, vocab_size))
    return next((head for head in tried if head is not None), None)


def _try_head(module: nn.Module, layer: Any, vocab_size: int) -> Head | None:
    head, plain = Head(), type(layer)
    mixin = _LinearHead if isinstance(layer, _LINEAR) else _EmbeddingHead
    layer.__class__ = type(plain.__name__, (mixin, plain), {})
    layer.head = head
    if _returns_one_row(cast(Model, module), head, vocab_size):
        return head
    layer.__class__ = plain
    return None


def _candidates(module: nn.Module, vocab_size: int) -> list[Any]:
    """The linear layers as wide as the vocabulary, else the embeddings, one of which may be tied.

    Some models have a second embedding of that size.
    """
    for kinds in (_LINEAR, _EMBEDDING):
        layers = [layer for _, layer in module.named_modules() if isinstance(layer, kinds)]
        found = [layer for layer in layers if layer["weight"].shape[0] == vocab_size]
        if found:
            return found
    return []


def _returns_one_row(model: Model, head: Head, vocab_size: int) -> bool:
    """Whether ``head`` works in the model; e.g. an adapter's layer may add all rows again.

    Only the shape is needed, so nothing is computed but NumPy's part of the CPU tuning.
    """
    tokens = mx.zeros((1, 2), dtype=mx.uint32)
    with head.last_only():
        try:
            logits = model(tokens, cache=library.new_cache(model))
        except Exception:  # a model's own code may need all rows, and raises anything
            return False
    return logits.shape == (1, 1, vocab_size)


class _LinearHead:
    head: Head

    def __call__(self, x: mx.array) -> mx.array:
        """(..., tokens, width) -> (..., tokens or 1, vocabulary)."""
        return cast(mx.array, cast(Any, super()).__call__(self.head.select(x)))


class _EmbeddingHead:
    head: Head

    def as_linear(self, x: mx.array) -> mx.array:
        """(..., tokens, width) -> (..., tokens or 1, vocabulary)."""
        return cast(mx.array, cast(Any, super()).as_linear(self.head.select(x)))
