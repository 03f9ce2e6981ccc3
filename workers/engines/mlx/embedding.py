"""Embeds texts: pools the hidden states before a model's output layer."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from workers.engines.base import Pooling


def embed(
    model: Any, inputs: list[list[int]], pooling: Pooling, context_length: int
) -> list[list[float]]:
    """One vector of length 1 per input of token ids, each (hidden size,).

    Raises ``InvalidRequestError`` for an empty or too long input, ``UnsupportedParameterError`` if
    the model's hidden states are not accessible.
    """
    body = getattr(model, "model", None)
    if body is None:
        raise UnsupportedParameterError("this model gives no access to its hidden states", "model")
    return [_embed(body, _checked(ids, context_length), pooling) for ids in inputs]


def _checked(ids: list[int], context_length: int) -> list[int]:
    if not 0 < len(ids) <= context_length:
        message = f"an input has {len(ids)} tokens; 1 to {context_length} can be embedded"
        raise InvalidRequestError(message, "input")
    return ids


def _embed(body: Any, ids: list[int], pooling: Pooling) -> list[float]:
    hidden = body(mx.array([ids]))[0].astype(mx.float32)
    vector = {
        Pooling.MEAN: lambda: hidden.mean(axis=0),
        Pooling.CLS: lambda: hidden[0],
        Pooling.LAST: lambda: hidden[-1],
    }[pooling]()
    length = mx.maximum(mx.linalg.norm(vector), 1e-12)
    values: list[float] = (vector / length).tolist()
    return values
