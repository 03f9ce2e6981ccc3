"""Embeds texts: pools the hidden states before a model's output layer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import cast

import mlx.core as mx

from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from workers.engines.base import Pooling
from workers.engines.mlx import library
from workers.engines.mlx.library import Model, PromptCache
from workers.engines.mlx.load.loading import LoadedModel
from workers.engines.mlx.memory import StateRoom
from workers.engines.shared.chunk_budget import ChunkBudget


class Embedder:
    """Embeds one input at a time, in pieces, with caches of its own."""

    def __init__(
        self,
        loaded: LoadedModel,
        pooling: Pooling,
        budget: ChunkBudget,
        room: StateRoom | None,
    ) -> None:
        """``pooling``: the model's own; ``budget``: of a piece; ``room``: limits its memory."""
        self._room = room
        self._budget = budget
        self._model = cast(Model, loaded.module)
        self._head = loaded.head
        self._pooling = pooling
        self._vocab_size = loaded.vocab_size
        self._context_length = loaded.context_length

    def check(self, inputs: list[list[int]]) -> None:
        """Raise ``InvalidRequestError`` for an input that cannot be read."""
        for ids in inputs:
            self._check(ids)

    def embed(
        self,
        inputs: list[list[int]],
        pooling: Pooling | None,
        on_piece: Callable[[], None] | None = None,
    ) -> list[list[float]]:
        """One vector of length 1 per input of checked token ids, each (hidden size,).

        Raises ``UnsupportedParameterError`` if the model's hidden states are not accessible.
        """
        return [self._embed(ids, pooling or self._pooling, on_piece) for ids in inputs]

    def _check(self, ids: list[int]) -> None:
        if not 0 < len(ids) <= self._context_length:
            limit = self._context_length
            message = f"an input has {len(ids)} tokens; 1 to {limit} can be embedded"
            raise InvalidRequestError(message, "input")
        # For a token id outside the embedding table MLX raises no error.
        if min(ids) < 0 or max(ids) >= self._vocab_size:
            message = f"an input has token ids outside the vocabulary (0 to {self._vocab_size - 1})"
            raise InvalidRequestError(message, "input")

    def _embed(
        self, ids: list[int], pooling: Pooling, on_piece: Callable[[], None] | None
    ) -> list[float]:
        states = self._hidden_states(ids, on_piece or _ignore)
        vector = next(states)
        if pooling is Pooling.MEAN:
            vector = vector.sum(axis=0) + sum(state.sum(axis=0) for state in states)
        elif pooling is Pooling.LAST:
            for state in states:
                vector = state
            vector = vector[-1]
        else:
            vector = vector[0]
        length = mx.maximum(mx.linalg.norm(vector), 1e-12)
        return cast(list[float], (vector / length).tolist())

    def _hidden_states(self, ids: list[int], on_piece: Callable[[], None]) -> Iterator[mx.array]:
        """The hidden states (tokens, width) of one piece after the other, in float32."""
        cache, num_done = library.new_cache(self._model), 0
        while num_done < len(ids):
            on_piece()
            started = time.perf_counter()
            piece = ids[num_done : num_done + self._piece(len(ids) - num_done, num_done)]
            hidden = self._pass(mx.array([piece], dtype=mx.uint32), cache)
            mx.eval(hidden, [layer.state for layer in cache])
            self._budget.record(len(piece), time.perf_counter() - started)
            num_done += len(piece)
            yield hidden[0].astype(mx.float32)

    def _piece(self, num_left: int, num_done: int) -> int:
        num_tokens = min(num_left, self._budget.num_tokens)
        return num_tokens if self._room is None else self._room.piece(num_tokens, num_done)

    def _pass(self, tokens: mx.array, cache: PromptCache) -> mx.array:
        if self._head is None:
            return self._pass_of_body(tokens, cache)
        with self._head.captured() as hidden:
            self._model(tokens, cache=cache)
        return hidden[-1]

    def _pass_of_body(self, tokens: mx.array, cache: PromptCache) -> mx.array:
        """Without a known head: what most models call all but their output layer."""
        body = getattr(self._model, "model", None)
        if body is None:
            message = "this model gives no access to its hidden states: it has no vectors"
            raise UnsupportedParameterError(message, "model")
        return cast(mx.array, body(tokens, cache=cache))


def _ignore() -> None:
    """Nobody waits for a sign of life."""
