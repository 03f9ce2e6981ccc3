"""Choosing the next token: one native sampler chain per sequence, in the order of jobs.sampling.

The end of a text is ignored (``ignore_eos``) by making every end token impossible, as llama.cpp's
own server does, so such a sequence never yields a token with ``is_end``.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Collection
from collections.abc import Sequence as ListLike
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.errors import InvalidRequestError, UnsupportedParameterError
from jobs.sampling import Sampling, draw_seed
from workers.engines.llama_cpp.binding import Pointer, lib

Logits = npt.NDArray[np.float32]

# Tokens this much less likely than the best are dropped before typical_p: its entropy would read
# the 0 · log 0 of a forbidden token as NaN.
_NEGLIGIBLE = 1e-30


class Sampler:
    """The chain of one sequence. It owns native memory: ``close`` it when the sequence ends."""

    def __init__(
        self,
        sampling: Sampling,
        prompt: ListLike[int],
        *,
        vocab_size: int,
        end_ids: Collection[int],
        context_length: int,
    ) -> None:
        self._seed = sampling.seed
        self._is_greedy = sampling.is_greedy
        self._chain: Pointer = lib.llama_sampler_chain_init(lib.llama_sampler_chain_params(True))
        self._add_bias(_biases(sampling, end_ids), vocab_size)
        self._add_penalties(sampling, prompt, vocab_size, context_length)
        if self._is_greedy:
            self._add(lib.llama_sampler_init_greedy())
        else:
            self._add_filters(sampling, vocab_size)
        self._draw_index: int = lib.llama_sampler_chain_n(self._chain)

    def sample(self, context: Pointer, row: int, position: int) -> int:
        """The token at ``position`` of the sequence, from the logits of ``row`` of the batch."""
        if not self._is_greedy:
            self._renew_draw(position)
        token: int = lib.llama_sampler_sample(self._chain, context, row)
        return token

    def close(self) -> None:
        """Free the chain."""
        lib.llama_sampler_free(self._chain)

    def _renew_draw(self, position: int) -> None:
        # A fresh random state per token (3 µs), so that it depends on (seed, position) alone.
        if lib.llama_sampler_chain_n(self._chain) > self._draw_index:
            lib.llama_sampler_free(lib.llama_sampler_chain_remove(self._chain, self._draw_index))
        self._add(lib.llama_sampler_init_dist(draw_seed(self._seed, position)))

    def _add_bias(self, biases: dict[int, float], vocab_size: int) -> None:
        if not biases:
            return
        entries = (lib.llama_logit_bias * len(biases))(*biases.items())
        self._add(lib.llama_sampler_init_logit_bias(vocab_size, len(biases), entries))

    def _add_penalties(
        self, sampling: Sampling, prompt: ListLike[int], vocab_size: int, context_length: int
    ) -> None:
        if not sampling.has_penalties:
            return
        # llama.cpp allocates the whole window, so an absurd request must not reach it.
        window = min(sampling.repetition_context_size, context_length)
        penalties = lib.llama_sampler_init_penalties(
            vocab_size,
            window,
            sampling.repetition_penalty,
            sampling.frequency_penalty,
            sampling.presence_penalty,
        )
        for token in prompt[-window:]:
            lib.llama_sampler_accept(penalties, token)
        self._add(penalties)

    def _add_filters(self, sampling: Sampling, vocab_size: int) -> None:
        if sampling.top_k > 0:
            self._add(lib.llama_sampler_init_top_k(min(sampling.top_k, vocab_size)))
        if sampling.typical_p < 1.0:
            self._add(lib.llama_sampler_init_min_p(_NEGLIGIBLE, 1))
            self._add(lib.llama_sampler_init_typical(sampling.typical_p, 1))
        if sampling.top_p < 1.0:
            self._add(lib.llama_sampler_init_top_p(sampling.top_p, 1))
        if sampling.min_p > 0.0:
            self._add(lib.llama_sampler_init_min_p(sampling.min_p, 1))
        if sampling.temperature != 1.0:
            self._add(lib.llama_sampler_init_temp(sampling.temperature))

    def _add(self, sampler: Pointer) -> None:
        lib.llama_sampler_chain_add(self._chain, sampler)  # which owns it from now on


def check_sampling(sampling: Sampling, vocab_size: int) -> None:
    """Raise the named error for what this engine cannot honour."""
    if sampling.mirostat_mode != 0:
        message = "mirostat_mode is not supported for GGUF models"
        raise UnsupportedParameterError(message, "mirostat_mode")
    outside = [token for token in sampling.logit_bias if not 0 <= token < vocab_size]
    if outside:
        message = (
            f"logit_bias: token {outside[0]} is outside the vocabulary (0 to {vocab_size - 1})"
        )
        raise InvalidRequestError(message, "logit_bias")


def token_logprobs(
    context: Pointer, row: int, vocab_size: int, token: int, num_top: int
) -> tuple[float, tuple[tuple[int, float], ...]]:
    """Log-probability of ``token`` and the ``num_top`` most likely, from the raw logits."""
    logits = _logits(context, row, vocab_size)
    largest = float(logits.max())
    normalizer = largest + math.log(float(np.exp(logits - largest).sum(dtype=np.float64)))
    top = tuple((i, float(logits[i]) - normalizer) for i in _most_likely(logits, num_top))
    return float(logits[token]) - normalizer, top


def _biases(sampling: Sampling, end_ids: Collection[int]) -> dict[int, float]:
    if not sampling.ignore_eos:
        return sampling.logit_bias
    return {**sampling.logit_bias, **dict.fromkeys(end_ids, -math.inf)}


def _logits(context: Pointer, row: int, vocab_size: int) -> Logits:
    """The raw logits of ``row``: a view, valid until the next decode."""
    pointer = lib.llama_get_logits_ith(context, row)
    address = ctypes.cast(pointer, ctypes.c_void_p).value
    assert address is not None, f"row {row} has no logits"
    memory: Any = (ctypes.c_float * vocab_size).from_address(address)
    return np.frombuffer(memory, np.float32)


def _most_likely(logits: Logits, count: int) -> list[int]:
    """Ids of the ``count`` largest, largest first, the smaller id first among equals."""
    count = min(count, len(logits))
    if count == 0:
        return []
    candidates = np.argpartition(logits, -count)[-count:].tolist()
    return sorted(candidates, key=lambda i: (-logits[i], i))
