"""DRY ("don't repeat yourself"): penalties for tokens that would continue a repetition.

If the last ``n`` tokens also occurred earlier, the token that followed them there loses
``dry_multiplier * dry_base ** (n - dry_allowed_length)`` of its logit. A repetition ends at a
sequence breaker. By p-e-w (text-generation-webui pull request 5677); in detail as llama.cpp's
``dry`` sampler.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from jobs.contract.sampling import Sampling
from workers.engines.base import Tokenizer

_MAX_TAIL = 20  # tokens of a breaker after its first, as in llama.cpp
_MAX_LOG = math.log(np.finfo(np.float32).max)  # so that llama.cpp's power does not overflow
_MIN_LOG = 1e-6
_MAX_PENALTY = 1e30  # as good as infinity, and still a number
_NUM_KEPT = 16  # lists of breakers

Ints = npt.NDArray[np.int32]

Breakers = Mapping[int, tuple[tuple[int, ...], ...]]
"""For each token in which a sequence breaker can begin: the tokens that complete it."""
NO_BREAKERS: Breakers = MappingProxyType({})

Penalties = dict[int, float]
"""What is subtracted from the logits, by token."""


class BreakerFinder:
    """Finds the tokens of a vocabulary in which a request's sequence breakers can occur."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._pieces: list[bytes] | None = None
        self._found = lru_cache(maxsize=_NUM_KEPT)(self._find)

    def of(self, sampling: Sampling) -> Breakers:
        """A sequence's breakers. Searches the vocabulary if the texts are new. Thread-safe."""
        return self._found(sampling.dry_sequence_breakers) if sampling.has_dry else NO_BREAKERS

    def repetitions(self, sampling: Sampling) -> Repetitions | None:
        """The state of a new sequence; ``None`` without DRY."""
        return Repetitions(sampling, self.of(sampling)) if sampling.has_dry else None

    def _find(self, texts: tuple[str, ...]) -> Breakers:
        found: dict[int, set[tuple[int, ...]]] = defaultdict(set)
        for text in texts:
            breaker = text.encode()
            first = breaker[:1]
            for token_id, piece in enumerate(self._all_pieces()):
                if breaker in piece:
                    found[token_id].add(())
                elif first in piece and (rests := _rests(piece, breaker)):
                    found[token_id].update(map(self._tail, rests))
        return {token_id: tuple(sorted(tails)) for token_id, tails in found.items()}

    def _all_pieces(self) -> list[bytes]:
        if self._pieces is None:
            tokenizer, size = self._tokenizer, self._tokenizer.vocab_size
            self._pieces = [
                tokenizer.piece(token_id) or tokenizer.control_text(token_id).encode()
                for token_id in range(size)
            ]
        return self._pieces

    def _tail(self, rest: bytes) -> tuple[int, ...]:
        text = rest.decode(errors="replace")
        ids = self._tokenizer.encode(text, add_special=False, parse_special=False)
        return tuple(ids[:_MAX_TAIL])


def _rests(piece: bytes, breaker: bytes) -> list[bytes]:
    """The rest of the breaker after ``piece``, for each position where it can begin there."""
    places = range(max(0, len(piece) - len(breaker) + 1), len(piece))
    return [breaker[len(piece) - i :] for i in places if breaker.startswith(piece[i:])]


def penalties(tokens: Sequence[int], sampling: Sampling, breakers: Breakers) -> Penalties:
    """The penalties after ``tokens``, which are prompt and answer."""
    return Repetitions(sampling, breakers).penalties(tokens)


class Repetitions:
    """The repetitions of one sequence, updated as it grows.

    ``_lengths[i]`` is the number of tokens up to ``_tokens[i]`` that are also the last tokens of
    the sequence. All state follows from the tokens, so a resumed sequence has the same penalties.
    """

    def __init__(self, sampling: Sampling, breakers: Breakers) -> None:
        self._sampling = sampling
        self._breakers = breakers
        self._tokens: Ints = np.empty(0, np.int32)
        self._lengths: Ints = np.empty(0, np.int32)
        self._is_head: npt.NDArray[np.bool_] = np.empty(0, np.bool_)

    def penalties(self, tokens: Sequence[int]) -> Penalties:
        """See ``penalties``; ``tokens`` may only have grown since the last call."""
        sampling = self._sampling
        if not sampling.has_dry:
            return {}
        self._learn(tokens)
        num = sampling.dry_penalty_last_n if sampling.dry_penalty_last_n > 0 else len(tokens)
        window = self._tokens[-num:]
        limit, shortest = self._limit(window), sampling.dry_allowed_length
        if len(window) <= max(1, shortest) or limit < shortest:
            return {}
        reach = np.arange(1, len(window))  # a repetition lies in the window as a whole
        lengths = np.minimum(np.minimum(self._lengths[-len(reach) :], reach), limit)
        return self._weighed(window[1:], lengths)

    def _learn(self, tokens: Sequence[int]) -> None:
        known = len(self._tokens)
        new = np.array(tokens[known:], np.int32)
        heads = [int(token) in self._breakers for token in new]
        self._is_head = np.append(self._is_head, np.array(heads, np.bool_))
        if known == 0:
            self._tokens, self._lengths = new, _common_endings(new.tolist())
            return
        for token in new:
            before = np.append(np.int32(0), self._lengths)
            self._lengths = np.where(self._tokens == token, before + 1, 0).astype(np.int32)
            self._tokens = np.append(self._tokens, token)

    def _limit(self, window: Ints) -> int:
        """Number of tokens after the last sequence breaker."""
        for head in np.flatnonzero(self._is_head[-len(window) :])[::-1].tolist():
            behind = window[head + 1 :]
            tails = self._breakers[int(window[head])]
            fitting = [len(tail) for tail in tails if behind[: len(tail)].tolist() == list(tail)]
            if fitting:
                return len(behind) - max(fitting)
        return len(window)

    def _weighed(self, following: Ints, lengths: Ints) -> Penalties:
        """Penalties by following token, for the longest repetition that it continues."""
        is_long = lengths >= self._sampling.dry_allowed_length
        longest = np.full(int(following.max()) + 1, -1, np.int32)
        np.maximum.at(longest, following[is_long], lengths[is_long])
        return {
            token: _penalty(self._sampling, int(longest[token]))
            for token in np.flatnonzero(longest >= 0).tolist()
            if () not in self._breakers.get(token, ())  # a breaker by itself
        }


def _penalty(sampling: Sampling, length: int) -> float:
    exponent = length - sampling.dry_allowed_length
    log_base = math.log(sampling.dry_base)
    if log_base > _MIN_LOG:
        exponent = min(exponent, int(_MAX_LOG / log_base))
    return min(sampling.dry_multiplier * sampling.dry_base**exponent, _MAX_PENALTY)


def _common_endings(tokens: Sequence[int]) -> Ints:
    """For each token but the last: how many tokens up to it equal the last ones (Z-algorithm)."""
    last = tokens[::-1]
    counts = [0] * len(last)
    left = right = 0
    for i in range(1, len(last)):
        count = min(counts[i - left], right - i) if i < right else 0
        while i + count < len(last) and last[count] == last[i + count]:
            count += 1
        if i + count > right:
            left, right = i, i + count
        counts[i] = count
    return np.array(counts[:0:-1], np.int32)
