"""Choosing the next token: a native sampler chain per sequence, in jobs.contract.sampling's order.

The end of a text is ignored (``ignore_eos``) by making every end token impossible, as llama.cpp's
own server does, so such a sequence never yields a token with ``is_end``.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Collection, Iterator
from collections.abc import Sequence as ListLike
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.contract.errors import InvalidRequestError
from jobs.contract.sampling import Sampling, draw_seed
from workers.engines import mirostat
from workers.engines.base import Constraint
from workers.engines.llama_cpp.binding import Pointer, lib
from workers.engines.llama_cpp.sampling.dry import dry_window
from workers.engines.llama_cpp.sampling.scoring import Logits, logits_of

# Tokens this much less likely than the best are dropped before typical_p: its entropy would read
# the 0 · log 0 of a forbidden token as NaN.
_NEGLIGIBLE = 1e-30
_LOWEST = np.finfo(np.float32).min
_CANDIDATE = np.dtype([("id", "i4"), ("logit", "f4"), ("p", "f4")])


class Sampler:
    """How one sequence draws. It owns native memory: ``close`` it when the sequence ends.

    Two chains: ``_first`` for bias, penalties and DRY, ``_then`` for filters and draw. Without
    anything to do between them they are one, which llama.cpp runs at a go. ``dry`` is the DRY
    sampler, which then belongs to the chain. ``mu`` is where mirostat stands, ``None`` without it.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt: ListLike[int],
        *,
        vocab_size: int,
        end_ids: Collection[int],
        context_length: int,
        dry: Pointer | None = None,
        mu: float | None = None,
        constraint: Constraint | None = None,
    ) -> None:
        self._sampling = sampling
        self._vocab_size = vocab_size
        self._is_greedy = sampling.is_greedy
        self._constraint = constraint
        self.mu = None
        if mirostat.is_used(sampling):
            self.mu = mirostat.first_mu(sampling) if mu is None else mu
        self._first = _new_chain()
        biases = _biases(sampling, end_ids)
        self._add_bias(biases, vocab_size)
        # Where nothing is favoured, the likeliest token stays so unless it is disfavoured itself.
        self._disfavoured = None if any(b > 0 for b in biases.values()) else frozenset(biases)
        self._bias_ids = np.fromiter(biases.keys(), np.int32, len(biases))
        self._bias_values = np.fromiter(biases.values(), np.float32, len(biases))
        self._add_penalties(sampling, prompt, vocab_size, context_length)
        if dry is not None:
            self._add_with_history(dry, prompt[-dry_window(sampling, context_length) :])
        self._is_plain = lib.llama_sampler_chain_n(self._first) == 0
        self._is_argmax = self._is_greedy and not sampling.has_penalties and dry is None
        self._then = self._first if constraint is None and self.mu is None else _new_chain()
        if self._is_greedy:
            _add(self._then, lib.llama_sampler_init_greedy())
        elif self.mu is None:
            self._add_filters(sampling, vocab_size)
        self._num_lasting: int = lib.llama_sampler_chain_n(self._then)

    def sample(self, context: Pointer, row: int, position: int) -> int:
        """The token at ``position`` of the sequence, from the logits of ``row`` of the batch."""
        if self._then is not self._first:
            return self._sample_in_steps(logits_of(context, row, self._vocab_size), position)
        if self._is_argmax:
            # Without llama.cpp's list of candidates: a fifth of its time.
            return self._likeliest(logits_of(context, row, self._vocab_size))
        if not self._is_greedy:
            self._renew_end(position)
        token: int = lib.llama_sampler_sample(self._then, context, row)
        return token

    def _likeliest(self, logits: Logits) -> int:
        likeliest = int(logits.argmax())
        if self._disfavoured is not None and likeliest not in self._disfavoured:
            return likeliest
        biased = logits.copy()
        biased[self._bias_ids] += self._bias_values
        return int(biased.argmax())

    def close(self) -> None:
        """Free the chains."""
        if self._then is not self._first:
            lib.llama_sampler_free(self._then)
        lib.llama_sampler_free(self._first)

    def _sample_in_steps(self, raw: Logits, position: int) -> int:
        """Bias and penalties, then the grammar, then mirostat or the filters and the draw."""
        logits = raw if self._is_plain else self._biased(raw)
        ids = np.arange(len(logits), dtype=np.int32)
        mask = self._constraint.allowed() if self._constraint is not None else None
        if mask is not None:
            ids = np.flatnonzero(mask).astype(np.int32)
        if self.mu is not None:
            heard = np.full(len(logits), -np.inf)
            heard[ids] = logits[ids]
            token, self.mu = mirostat.sample(heard, self._sampling, position, self.mu)
        elif self._is_greedy:
            token = int(ids[logits[ids].argmax()])
        else:
            token = self._drawn(ids, logits[ids], position)
        lib.llama_sampler_accept(self._first, token)
        if self._constraint is not None:
            self._constraint.accept(token)
        return token

    def _biased(self, raw: Logits) -> Logits:
        """The logits after bias and penalties, by the chain, in the vocabulary's order."""
        array, table = _candidates(np.arange(len(raw), dtype=np.int32), raw)
        lib.llama_sampler_apply(self._first, ctypes.byref(array))
        biased = np.empty_like(raw)
        # DRY may leave nothing possible among the few tokens that a grammar allows.
        biased[table["id"]] = np.maximum(table["logit"], _LOWEST)
        return biased

    def _drawn(self, ids: npt.NDArray[np.int32], logits: Logits, position: int) -> int:
        """One of ``ids``, by filters and draw."""
        self._renew_end(position)
        array, _table = _candidates(ids, logits)
        lib.llama_sampler_apply(self._then, ctypes.byref(array))
        return int(array.data[array.selected].id)  # XTC moves the beginning of the list

    def _renew_end(self, position: int) -> None:
        """Replace the last samplers of the chain, from XTC on.

        A new random state per token (3 µs), so that the draw depends only on seed and position.
        """
        while lib.llama_sampler_chain_n(self._then) > self._num_lasting:
            lib.llama_sampler_free(lib.llama_sampler_chain_remove(self._then, self._num_lasting))
        for sampler in _ending(self._sampling, position):
            _add(self._then, sampler)

    def _add_bias(self, biases: dict[int, float], vocab_size: int) -> None:
        if not biases:
            return
        entries = (lib.llama_logit_bias * len(biases))(*biases.items())
        _add(self._first, lib.llama_sampler_init_logit_bias(vocab_size, len(biases), entries))

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
        self._add_with_history(penalties, prompt[-window:])

    def _add_with_history(self, sampler: Pointer, tokens: ListLike[int]) -> None:
        """A sampler that looks back at ``tokens``."""
        for token in tokens:
            lib.llama_sampler_accept(sampler, token)
        _add(self._first, sampler)

    def _add_filters(self, sampling: Sampling, vocab_size: int) -> None:
        if sampling.top_n_sigma > 0.0:
            _add(self._then, lib.llama_sampler_init_top_n_sigma(sampling.top_n_sigma))
        if sampling.top_k > 0:
            _add(self._then, lib.llama_sampler_init_top_k(min(sampling.top_k, vocab_size)))
        if sampling.typical_p < 1.0:
            _add(self._then, lib.llama_sampler_init_min_p(_NEGLIGIBLE, 1))
            _add(self._then, lib.llama_sampler_init_typical(sampling.typical_p, 1))
        if sampling.top_p < 1.0:
            _add(self._then, lib.llama_sampler_init_top_p(sampling.top_p, 1))
        if sampling.min_p > 0.0:
            _add(self._then, lib.llama_sampler_init_min_p(sampling.min_p, 1))


def _ending(sampling: Sampling, position: int) -> Iterator[Pointer]:
    """XTC, temperature and draw of the token at ``position``."""
    if sampling.has_xtc_at(position):
        threshold = max(sampling.xtc_threshold, _NEGLIGIBLE)
        yield lib.llama_sampler_init_xtc(1.0, threshold, 1, 0)  # it acts: decided above
    if sampling.dynatemp_range > 0.0:
        values = (sampling.temperature, sampling.dynatemp_range, sampling.dynatemp_exponent)
        yield lib.llama_sampler_init_temp_ext(*values)
    elif sampling.temperature != 1.0:
        yield lib.llama_sampler_init_temp(sampling.temperature)
    yield lib.llama_sampler_init_dist(draw_seed(sampling.seed, position))


def _new_chain() -> Pointer:
    return lib.llama_sampler_chain_init(lib.llama_sampler_chain_params(True))


def _add(chain: Pointer, sampler: Pointer) -> None:
    lib.llama_sampler_chain_add(chain, sampler)  # which owns it from now on


def _candidates(ids: npt.NDArray[np.int32], logits: Logits) -> tuple[Any, npt.NDArray[np.void]]:
    """llama.cpp's list of candidates, and the table in numpy that it is a view of."""
    table = np.zeros(len(ids), _CANDIDATE)
    table["id"], table["logit"] = ids, logits
    data = table.ctypes.data_as(ctypes.POINTER(lib.llama_token_data))
    return lib.llama_token_data_array(data, len(ids), -1, False), table


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
