"""Log-probabilities of a prompt's tokens, collected chunk by chunk."""

from __future__ import annotations

from typing import cast

import mlx.core as mx

from workers.engines.mlx.sampling.sampler import most_likely

# All logits of a chunk are computed: 150 MB in float32 for a vocabulary of 150,000.
_MAX_CHUNK = 256

Entries = tuple[tuple[float, tuple[tuple[int, float], ...]], ...]


class LogprobPass:
    """Collects each token's log-probability and the ``num_top`` likeliest of its position."""

    max_chunk = _MAX_CHUNK

    def __init__(self, num_top: int) -> None:
        self._num_top = num_top
        self._entries: Entries = ()
        self._pending: list[mx.array] = []

    def add(self, logits: mx.array, tokens: list[int]) -> None:
        """Add ``tokens`` with the raw ``logits`` (len(tokens), vocab) that predict them."""
        self._read()
        wide = logits.astype(mx.float32)
        logprobs = wide - mx.logsumexp(wide, axis=-1, keepdims=True)
        chosen = mx.take_along_axis(logprobs, mx.array(tokens)[:, None], axis=-1)[:, 0]
        top_ids = most_likely(logprobs, self._num_top)
        top = mx.take_along_axis(logprobs, top_ids, axis=-1)
        self._pending = [chosen, top_ids, top]

    def pending(self) -> list[mx.array]:
        """Arrays to evaluate for the last chunk."""
        return self._pending

    def entries(self) -> Entries:
        """The entries of all tokens so far, in order."""
        self._read()
        return self._entries

    def _read(self) -> None:
        if not self._pending:
            return
        chosen, top_ids, top = (array.tolist() for array in self._pending)
        pairs = zip(cast(list[list[int]], top_ids), cast(list[list[float]], top), strict=True)
        alternatives = [tuple(zip(ids, values, strict=True)) for ids, values in pairs]
        self._entries += tuple(zip(cast(list[float], chosen), alternatives, strict=True))
        self._pending = []
