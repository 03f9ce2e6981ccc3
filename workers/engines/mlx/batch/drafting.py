"""Guesses at the next tokens of a sequence: looked up in its own text, or from a smaller model."""

from __future__ import annotations

import time
from typing import Protocol, cast

import mlx.core as mx

from workers.engines.mlx import library
from workers.engines.mlx.cache import kv
from workers.engines.mlx.library import Model, PromptCache
from workers.engines.shared.chunk_budget import ChunkBudget
from workers.engines.shared.prompt_lookup import PromptLookup
from workers.engines.shared.token_key import num_common, to_key


class Drafter(Protocol):
    """Guesses for one sequence at a time. A guess may be wrong, or missing; it is verified."""

    def start(self, tokens: list[int]) -> None:
        """Begin with another sequence."""
        ...

    def draft(self, tokens: list[int], max_tokens: int) -> list[int]:
        """Up to ``max_tokens`` that may follow the ``tokens`` of the sequence, which only grow."""
        ...


class TextDrafter:
    """Looks guesses up in the sequence's own text."""

    def __init__(self) -> None:
        self._lookup = PromptLookup()

    def start(self, tokens: list[int]) -> None:
        self._lookup = PromptLookup()

    def draft(self, tokens: list[int], max_tokens: int) -> list[int]:
        return self._lookup.draft(tokens, max_tokens)


class ModelDrafter:
    """The likeliest tokens of a smaller model, whose KV state follows the sequence.

    ``held`` are the tokens in its cache; a long prompt takes it some calls, without guesses.
    """

    def __init__(self, model: Model, vocab_size: int, num_outputs: int, max_length: int) -> None:
        """``vocab_size`` tokens are common; ``num_outputs`` is the width of the draft's logits."""
        self._model = model
        self._num_common_ids = min(vocab_size, num_outputs)
        self._num_inputs = num_outputs
        self._max_length = max_length
        self._cache: PromptCache = library.new_cache(model)
        self._held: list[int] = []
        self._num_sure = 0
        self._budget = ChunkBudget()

    def start(self, tokens: list[int]) -> None:
        self._num_sure = num_common(to_key(self._held), to_key(tokens))

    def draft(self, tokens: list[int], max_tokens: int) -> list[int]:
        if len(tokens) + max_tokens > self._max_length:
            return []
        self._align(tokens)
        if not self._catch_up(tokens):
            return []
        drafts = self._guess(tokens[len(self._held) :], max_tokens)
        self._num_sure = len(tokens)
        self._held = tokens + drafts[:-1]
        return drafts

    def _align(self, tokens: list[int]) -> None:
        """Take back what the sequence does not have, and its last token, which is to be read."""
        num, end = self._num_sure, min(len(self._held), len(tokens) - 1)
        while num < end and self._held[num] == tokens[num]:
            num += 1
        num = min(num, end)
        kv.trim(self._cache, len(self._held) - num)
        self._held, self._num_sure = self._held[:num], num

    def _catch_up(self, tokens: list[int]) -> bool:
        """Whether what is left to read is short; else a bounded piece of it has been read."""
        num_pending = len(tokens) - len(self._held)
        if num_pending <= self._budget.num_tokens:
            return True
        started = time.perf_counter()
        end = len(self._held) + self._budget.num_tokens
        self._read(tokens[len(self._held) : end])
        mx.eval([layer.state for layer in self._cache])
        self._budget.record(end - len(self._held), time.perf_counter() - started)
        self._held = tokens[:end]
        self._num_sure = end
        return False

    def _guess(self, pending: list[int], num: int) -> list[int]:
        token = self._likeliest(self._read(pending))
        drafts = [token]
        for _ in range(num - 1):
            token = self._likeliest(self._model(token[None], cache=self._cache))
            drafts.append(token)
        return cast(list[int], mx.concatenate(drafts).tolist())

    def _read(self, tokens: list[int]) -> mx.array:
        # MLX reads beyond the embedding table without an error: the larger model may know more.
        known = [min(token, self._num_inputs - 1) for token in tokens]
        return self._model(mx.array(known, dtype=mx.uint32)[None], cache=self._cache)

    def _likeliest(self, logits: mx.array) -> mx.array:
        return mx.argmax(logits[:, -1, : self._num_common_ids], axis=-1)
