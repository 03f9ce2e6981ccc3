"""Choosing the next token: one native sampler chain per sequence, in the order of jobs.sampling.

The end of a text is ignored (``ignore_eos``) by making every end token impossible, as llama.cpp's
own server does, so such a sequence never yields a token with ``is_end``.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Collection
from collections.abc import Sequence as ListLike

import numpy as np
import numpy.typing as npt

from jobs.errors import InvalidRequestError
from jobs.sampling import Sampling, draw_seed
from workers.engines import mirostat
from workers.engines.llama_cpp.binding import Pointer, lib
from workers.engines.llama_cpp.scoring import logits_of

# Tokens this much less likely than the best are dropped before typical_p: its entropy would read
# the 0 · log 0 of a forbidden token as NaN.
_NEGLIGIBLE = 1e-30


class Sampler:
    """The chain of one sequence. It owns native memory: ``close`` it when the sequence ends.

    ``mu`` is where mirostat stands, ``None`` without it.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt: ListLike[int],
        *,
        vocab_size: int,
        end_ids: Collection[int],
        context_length: int,
        mu: float | None = None,
    ) -> None:
        self._sampling = sampling
        self._vocab_size = vocab_size
        self._is_greedy = sampling.is_greedy
        self.mu = None
        self._chain: Pointer = lib.llama_sampler_chain_init(lib.llama_sampler_chain_params(True))
        self._add_bias(_biases(sampling, end_ids), vocab_size)
        self._add_penalties(sampling, prompt, vocab_size, context_length)
        self._is_plain = lib.llama_sampler_chain_n(self._chain) == 0
        if mirostat.is_used(sampling):
            self.mu = mirostat.first_mu(sampling) if mu is None else mu
        elif self._is_greedy:
            self._add(lib.llama_sampler_init_greedy())
        else:
            self._add_filters(sampling, vocab_size)
        self._draw_index: int = lib.llama_sampler_chain_n(self._chain)

    def sample(self, context: Pointer, row: int, position: int) -> int:
        """The token at ``position`` of the sequence, from the logits of ``row`` of the batch."""
        if self.mu is not None:
            return self._sample_mirostat(context, row, position, self.mu)
        if self._is_greedy and self._is_plain:
            # Without llama.cpp's list of candidates: a fifth of its time.
            return int(logits_of(context, row, self._vocab_size).argmax())
        if not self._is_greedy:
            self._renew_draw(position)
        token: int = lib.llama_sampler_sample(self._chain, context, row)
        return token

    def close(self) -> None:
        """Free the chain."""
        lib.llama_sampler_free(self._chain)

    def _sample_mirostat(self, context: Pointer, row: int, position: int, mu: float) -> int:
        logits = logits_of(context, row, self._vocab_size).astype(np.float64)
        if not self._is_plain:
            logits = self._biased(logits)
        token, self.mu = mirostat.sample(logits, self._sampling, position, mu)
        lib.llama_sampler_accept(self._chain, token)
        return token

    def _biased(self, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The logits after bias and penalties, by the chain, in the vocabulary's order."""
        candidates = (lib.llama_token_data * len(logits))()
        table = np.frombuffer(candidates, np.dtype("i4, f4, f4"))
        table["f0"] = np.arange(len(logits))
        table["f1"] = logits
        array = lib.llama_token_data_array(candidates, len(logits), -1, False)
        lib.llama_sampler_apply(self._chain, ctypes.byref(array))
        biased = np.empty_like(logits)
        biased[table["f0"]] = table["f1"]
        return biased

    def _renew_draw(self, position: int) -> None:
        # A fresh random state per token (3 µs), so that it depends on (seed, position) alone.
        if lib.llama_sampler_chain_n(self._chain) > self._draw_index:
            lib.llama_sampler_free(lib.llama_sampler_chain_remove(self._chain, self._draw_index))
        self._add(lib.llama_sampler_init_dist(draw_seed(self._sampling.seed, position)))

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
    outside = [token for token in sampling.logit_bias if not 0 <= token < vocab_size]
    if outside:
        message = (
            f"logit_bias: token {outside[0]} is outside the vocabulary (0 to {vocab_size - 1})"
        )
        raise InvalidRequestError(message, "logit_bias")


def _biases(sampling: Sampling, end_ids: Collection[int]) -> dict[int, float]:
    if not sampling.ignore_eos:
        return sampling.logit_bias
    return {**sampling.logit_bias, **dict.fromkeys(end_ids, -math.inf)}
