"""Drafts the next tokens of a sequence: by prompt lookup or with a smaller model."""

from __future__ import annotations

import time
from typing import Protocol, cast

import mlx.core as mx

from workers.engines.mlx import library
from workers.engines.mlx.cache import kv
from workers.engines.mlx.cache.state_size import StateSize
from workers.engines.mlx.library import Model, PromptCache
from workers.engines.shared.chunk_budget import ChunkBudget
from workers.engines.shared.prompt_lookup import PromptLookup
from workers.engines.shared.token_key import num_common, to_key


class Drafter(Protocol):
    """Drafts for one sequence at a time. Drafts may be wrong or missing; the model checks them.

    ``state_size``: of the drafter's own state; ``None``: it has none, or it was not measured.
    """

    state_size: StateSize | None

    def start(self, tokens: list[int]) -> None:
        """Switch to another sequence."""
        ...

    def draft(self, tokens: list[int], max_tokens: int) -> list[int]:
        """Up to ``max_tokens`` drafts after ``tokens``, the whole sequence, which may only grow."""
        ...


class TextDrafter:
    """Prompt lookup: drafts from the sequence's own text."""

    state_size: StateSize | None = None

    def __init__(self) -> None:
        self._lookup = PromptLookup()

    def start(self, tokens: list[int]) -> None:
        self._lookup = PromptLookup()

    def draft(self, tokens: list[int], max_tokens: int) -> list[int]:
        return self._lookup.draft(tokens, max_tokens)


class ModelDrafter:
    """Drafts the likeliest tokens of a smaller model, which has a KV cache of its own.

    A long prompt is prefilled in several calls, which return no drafts.
    """

    def __init__(
        self,
        model: Model,
        vocab_size: int,
        num_outputs: int,
        max_length: int,
        state_size: StateSize | None = None,
    ) -> None:
        """``vocab_size``: of the large model; ``num_outputs``: width of this model's logits."""
        self._model = model
        self.state_size = state_size
        self._num_common_ids = min(vocab_size, num_outputs)
        self._num_inputs = num_outputs
        self._max_length = max_length
        self._cache: PromptCache = library.new_cache(model)
        self._cached: list[int] = []  # the tokens in the cache
        self._num_verified = 0  # of them, known to be equal to the sequence's
        self._budget = ChunkBudget()

    def start(self, tokens: list[int]) -> None:
        self._num_verified = num_common(to_key(self._cached), to_key(tokens))

    def draft(self, tokens: list[int], max_tokens: int) -> list[int]:
        if len(tokens) + max_tokens > self._max_length:
            return []
        self._align(tokens)
        if not self._catch_up(tokens):
            return []
        drafts = self._generate(tokens[len(self._cached) :], max_tokens)
        self._num_verified = len(tokens)
        self._cached = tokens + drafts[:-1]
        return drafts

    def _align(self, tokens: list[int]) -> None:
        """Trim the cache to its common prefix with ``tokens``, without the last of ``tokens``."""
        num, end = self._num_verified, min(len(self._cached), len(tokens) - 1)
        while num < end and self._cached[num] == tokens[num]:
            num += 1
        num = min(num, end)
        kv.trim(self._cache, len(self._cached) - num)
        self._cached, self._num_verified = self._cached[:num], num

    def _catch_up(self, tokens: list[int]) -> bool:
        """True if few tokens are uncomputed; otherwise prefill one chunk of them."""
        num_uncomputed = len(tokens) - len(self._cached)
        if num_uncomputed <= self._budget.num_tokens:
            return True
        started = time.perf_counter()
        end = len(self._cached) + self._budget.num_tokens
        self._forward(tokens[len(self._cached) : end])
        mx.eval([layer.state for layer in self._cache])
        self._budget.record(end - len(self._cached), time.perf_counter() - started)
        self._cached = tokens[:end]
        self._num_verified = end
        return False

    def _generate(self, uncomputed: list[int], num: int) -> list[int]:
        token = self._likeliest(self._forward(uncomputed))
        drafts = [token]
        for _ in range(num - 1):
            token = self._likeliest(self._model(token[None], cache=self._cache))
            drafts.append(token)
        return cast(list[int], mx.concatenate(drafts).tolist())

    def _forward(self, tokens: list[int]) -> mx.array:
        # The larger model may have more tokens, and for an id outside the embedding table MLX
        # raises no error.
        valid = [min(token, self._num_inputs - 1) for token in tokens]
        return self._model(mx.array(valid, dtype=mx.uint32)[None], cache=self._cache)

    def _likeliest(self, logits: mx.array) -> mx.array:
        return mx.argmax(logits[:, -1, : self._num_common_ids], axis=-1)
